"""Where a process belongs: its systemd unit, its container, its pod, from the text of /proc/PID/cgroup.

The rule: pure, both versions of control groups (man 7 cgroups), and what no path names is None. The names in the paths
are those of systemd, Docker, containerd, CRI-O and Podman, under the systemd and the cgroupfs driver.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})\b")
_UNIT = re.compile(r"/([^/]+\.service)(?=/|$)")


class Placement(NamedTuple):
    """None is: in none, or not to be told."""

    unit: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None


def parse_cgroup(text: str) -> Placement:
    """The innermost of each that any hierarchy names."""
    unit = container_id = pod_uid = None
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        container_id = container_id or _last(_CONTAINER, path)
        pod_uid = pod_uid or _last(_POD, path)
        unit = unit or _last(_UNIT, path)
    if container_id:  # the unit would be that of the container's runtime
        unit = None
    return Placement(unit, container_id, pod_uid.replace("_", "-") if pod_uid else None)


def _last(pattern: re.Pattern[str], path: str) -> str | None:
    found = pattern.findall(path)
    return found[-1] if found else None
