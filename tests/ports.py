"""Ports of this host that are a test's own until its process ends.

The rule: such a port stays bound, so that nobody else is given it, neither who asks for any port nor who connects
somewhere. What listens there sets SO_REUSEADDR, as all servers do; until then whoever connects is refused.
"""

from pgsonar.demo.postgres import hold_port

_held = []


def free_port():
    held = hold_port()
    _held.append(held)
    return held.getsockname()[1]
