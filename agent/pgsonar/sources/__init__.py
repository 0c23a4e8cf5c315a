"""Where facts come from: the kernel, /proc and the files of the servers. One file an outside world."""
