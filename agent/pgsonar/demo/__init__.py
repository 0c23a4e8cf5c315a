"""The demonstration: an embedded server, clients that leak, an OTLP receiver.

The rule: only `commands/demo.py` knows this folder. It needs no PostgreSQL of the machine and leaves nothing behind.
"""
