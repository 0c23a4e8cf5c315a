"""Where facts come from: the kernel, /proc, the files of the servers, logins. One file an outside world.

The rule: a source reads and says what it could not read; it judges nothing and remembers no more than it needs to read
less the next time. Bytes chosen by others are decoded here, once.
"""
