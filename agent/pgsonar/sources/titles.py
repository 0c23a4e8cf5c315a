"""Process titles of PostgreSQL's children, taken apart.

The rule: parsed from the right, because user and database names are chosen by others and may hold anything, also a
false `1.2.3.4(99) idle`. The shape is `postgres: [cluster_name: ]user database host(port) activity[ waiting]`
(src/backend/utils/misc/ps_status.c, src/backend/tcop/backend_startup.c); bytes are decoded once, here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pgsonar.model import BackendKind, Title

PREFIX = b"postgres: "
# The last ` host(port)` or ` [local]` that is followed by an end or a blank. The greedy head makes it the rightmost.
_CLIENT = re.compile(
    rb"(?P<head>.*) (?:(?P<local>\[local\])|(?P<host>[^ ()]+)\((?P<port>\d{1,5})\))(?: (?P<activity>.*))?", re.DOTALL
)
_AUXILIARY = re.compile(
    rb"postgres: (?P<cluster>.*): (checkpointer|background writer|walwriter|logical replication launcher) ?", re.DOTALL
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def parse_title(raw: bytes, cluster_name: str, postmaster_cmdline: bytes) -> Title:
    """The title in /proc/PID/cmdline of a postmaster's child."""
    if raw == postmaster_cmdline and raw:
        return Title(BackendKind.PRESTARTUP, text=readable(raw.replace(b"\0", b" ")))
    title = raw.rstrip(b"\0")
    text = readable(title)
    if not title.startswith(PREFIX):
        return Title(BackendKind.UNKNOWN, text=text)
    body = title.removeprefix(PREFIX)
    if cluster_name:
        body = body.removeprefix(cluster_name.encode("utf-8", "surrogateescape") + b": ")
    client = _CLIENT.fullmatch(body)
    if client is None:
        # Workers of extensions have names of their own, so whatever names no client is a worker.
        return Title(BackendKind.WORKER if body else BackendKind.UNKNOWN, text=text)
    return _client_title(client, text)


def _client_title(found: re.Match[bytes], text: str) -> Title:
    head = found["head"]
    kind = BackendKind.CLIENT
    if head.startswith(b"walsender "):
        kind, head = BackendKind.WALSENDER, head.removeprefix(b"walsender ")
    words = head.split(b" ")
    # With more blanks nobody can tell where the user's name ends.
    user, database = words if len(words) == 2 else (words[0] if kind is BackendKind.WALSENDER else None, None)
    activity = found["activity"]
    waiting = bool(activity) and activity.endswith(b" waiting")
    if waiting:
        activity = activity.removesuffix(b" waiting")
    return Title(
        kind=kind,
        user=readable(user) if user is not None else None,
        database=readable(database) if database is not None else None,
        host=readable(found["local"] or found["host"]),
        port=int(found["port"]) if found["port"] else None,
        activity=readable(activity) if activity else None,
        waiting=waiting,
        text=text,
    )


def learn_cluster_name(titles: Iterable[bytes]) -> str:
    """The cluster_name that stands in every title, told by the children whose names are PostgreSQL's own."""
    names: Counter[bytes] = Counter()
    for raw in titles:
        found = _AUXILIARY.fullmatch(raw.rstrip(b"\0"))
        if found is not None:
            names[found["cluster"]] += 1
    return names.most_common(1)[0][0].decode("utf-8", "surrogateescape") if names else ""


def readable(raw: bytes) -> str:
    r"""Bytes chosen by others, safe to print: bad ones as \xNN, control characters escaped."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", raw.decode("utf-8", "backslashreplace"))
