"""Process titles of PostgreSQL's children, taken apart.

The rule: parsed from the right, because user and database names are chosen by others and may hold anything, also a
false `1.2.3.4(99) idle`; where nobody can tell a user from a database, both are one. The shape is
`postgres: [cluster_name: ]user database host(port) activity[ waiting]` (src/backend/utils/misc/ps_status.c,
src/backend/tcop/backend_startup.c); bytes are decoded once, here.

A title has the room of the postmaster's arguments and environment, and is cut where that ends. What is cut is taken for
nothing that it may not be. Whoever may not read how large the room is, tells a cut by what it leaves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pgsonar.model import Activity, BackendKind, Title

PREFIX = b"postgres: "
_PADDED = 3  # zeros: one ends every title, and one the arguments
# The last ` host(port)` or ` [local]` that is followed by an end or a blank. The greedy head makes it the rightmost.
_CLIENT = re.compile(
    rb"(?P<head>.*) (?:(?P<local>\[local\])|(?P<host>[^ ()]+)\((?P<port>\d{1,5})\))(?: (?P<activity>.*))?", re.DOTALL
)
_AUXILIARY = re.compile(
    rb"postgres: (?P<cluster>[ -~]*): (checkpointer|background writer|walwriter|logical replication launcher) *",
    re.DOTALL,
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# PostgreSQL's own children without a client (src/backend/utils/init/miscinit.c: GetBackendTypeDesc, and what each says
# of what it does). Extensions' workers are called as they like, with a blank behind.
_WORKER = re.compile(
    rb"(?:checkpointer|background writer|walwriter|logger|walsummarizer|stats collector|autovacuum launcher"
    rb"|logical replication launcher) *"
    rb"|checkpointer performing .*|startup *|startup recovering [0-9A-F].*|archiver *"
    rb"|archiver (?:last was|failed on|archiving) .*|walreceiver *|walreceiver (?:streaming|restarting) .*"
    rb"|autovacuum worker .*|io worker \d* *|slotsync worker *|parallel worker for PID \d* *"
    rb"|logical replication (?:worker|apply worker|tablesync worker|parallel apply worker) .*",
    re.DOTALL,
)
_WORKERS = (
    b"background writer",
    b"stats collector",
    b"autovacuum launcher",
    b"autovacuum worker",
    b"io worker",
    b"slotsync worker",
    b"parallel worker for PID",
    b"logical replication launcher",
    b"logical replication apply worker",
    b"logical replication tablesync worker",
    b"logical replication parallel apply worker",
    b"logical replication worker",
)

# Activities that are no command, and what each means while it is all that can be seen.
_MEANS = {
    b"idle": Activity.IDLE,
    b"idle in transaction": Activity.IN_TRANSACTION,
    b"idle in transaction (aborted)": Activity.ABORTED,
    b"authentication": Activity.AUTHENTICATION,
    b"authentication waiting": Activity.AUTHENTICATION,
    b"startup": Activity.STARTUP,
    b"startup waiting": Activity.STARTUP,
    b"initializing": Activity.INITIALIZING,
    b"initializing waiting": Activity.INITIALIZING,
    b"streaming ": "streaming",
    b"sending backup": "sending backup",
    b"fastpath function call": "fastpath function call",
    b"notify interrupt": "notify interrupt",
}
_IN_TRANSACTION = frozenset({Activity.IN_TRANSACTION, Activity.ABORTED})
_WAITING = b" waiting"
_COMMAND = re.compile(rb"[A-Z][A-Z_ ]*(?: w(?:a(?:i(?:t(?:i(?:ng?)?)?)?)?)?)?")
_HALF_WAITING = re.compile(rb".* w(?:a(?:i(?:t(?:in?)?)?)?)?", re.DOTALL)
# Half of a command is told by these: whole ones, and first words that never stand alone.
_WORDS = (
    b"SELECT INSERT UPDATE DELETE MERGE COPY BEGIN COMMIT ROLLBACK EXPLAIN EXECUTE VACUUM ANALYZE FETCH CLOSE "
    b"PREPARE DEALLOCATE LISTEN UNLISTEN NOTIFY CHECKPOINT DISCARD SAVEPOINT RELEASE GRANT REVOKE REINDEX CLUSTER "
    b"COMMENT SHOW CALL START_REPLICATION BASE_BACKUP IDENTIFY_SYSTEM"
).split()
_FIRST_WORDS = b"CREATE ALTER DROP START REFRESH DECLARE LOCK TRUNCATE IMPORT REASSIGN SECURITY".split()
# What walsenders without a database do; any other command is a client's, whose user is called walsender.
_REPLICATION = re.compile(r"[A-Z]+_[A-Z_]+|SHOW|[^A-Z].*")


def parse_title(raw: bytes, cluster_name: str, postmaster_cmdline: bytes, room: int | None = None) -> Title:
    """The title in /proc/PID/cmdline of a postmaster's child. `room` is how long one can be; None: not known."""
    if raw == postmaster_cmdline and raw:
        return Title(BackendKind.PRESTARTUP, text=readable(raw.replace(b"\0", b" ")))
    title = raw.rstrip(b"\0")
    # A title that ends within the arguments is followed by zeros up to their end.
    fills = len(title) >= room if room is not None else len(raw) - len(title) < _PADDED
    if not title.startswith(PREFIX):
        is_cut = fills and bool(title) and PREFIX.startswith(title)
        return Title(BackendKind.UNKNOWN, text=readable(title), is_cut=is_cut)
    body = _without_cluster(title.removeprefix(PREFIX), cluster_name, fills=fills)
    client = _CLIENT.fullmatch(body)
    if fills and (room is not None or _leaves_a_cut(body, client)):
        return _cut_title(body, client, readable(title))
    if client is None:
        # Workers of extensions have names of their own, so whatever names no client is a worker.
        return Title(BackendKind.WORKER if body else BackendKind.UNKNOWN, text=readable(title))
    return _client_title(client, readable(title))


def _without_cluster(body: bytes, cluster_name: str, *, fills: bool) -> bytes:
    if not cluster_name:
        return body
    before = cluster_name.encode("utf-8", "surrogateescape") + b": "
    return b"" if fills and before.startswith(body) else body.removeprefix(before)


def _leaves_a_cut(body: bytes, client: re.Match[bytes] | None) -> bool:
    """Whether a title that may be cut was, as far as can be told without the room: no whole one ends like this."""
    if client is None:
        return not (body.endswith(b" ") or (b" " in body and _WORKER.fullmatch(body)))
    activity = client["activity"]
    if activity is None:  # the blank behind host(port) is always written
        return True
    if not activity or activity in _MEANS:
        return False
    if any(known.startswith(activity) for known in _MEANS) or (
        _HALF_WAITING.fullmatch(activity) and not activity.endswith(_WAITING)
    ):
        return True
    if activity.endswith(b" ") or any(word.startswith(activity) for word in _FIRST_WORDS):
        return True
    return activity not in _WORDS and any(word.startswith(activity) for word in _WORDS)


def _cut_title(body: bytes, client: re.Match[bytes] | None, text: str) -> Title:
    """What a cut title tells for certain: who it is if the activity has begun, and a worker by its name alone."""
    if client is not None and b" " in client["head"]:
        activity = client["activity"] or b""
        meanings = {meaning for whole, meaning in _MEANS.items() if whole.startswith(activity)}
        if meanings or _COMMAND.fullmatch(activity):
            told = meanings.pop() if len(meanings) == 1 else None
            if meanings == _IN_TRANSACTION:
                told = Activity.IN_TRANSACTION  # an aborted one is open as well
            return _client_title(client, text)._replace(activity=told, waiting=False, is_cut=True)
    is_one_word = b" " not in body.rstrip(b" ")  # which may be a user's
    if not is_one_word and (_WORKER.fullmatch(body) or _begins_a_worker(body)):
        return Title(BackendKind.WORKER, text=text)
    is_walsender = body.startswith(b"walsender ")
    return Title(BackendKind.WALSENDER if is_walsender else BackendKind.UNKNOWN, text=text, is_cut=True)


def _begins_a_worker(body: bytes) -> bool:
    """Whether it is the beginning of a worker's name, beyond the first word."""
    return any(name.startswith(body) and len(body) > name.index(b" ") + 1 for name in _WORKERS)


def _client_title(found: re.Match[bytes], text: str) -> Title:
    activity = found["activity"]
    waiting = bool(activity) and activity.endswith(_WAITING)
    if waiting:
        activity = activity.removesuffix(_WAITING)
    does = readable(activity) if activity else None
    kind, head = _kind(found["head"], does)
    words = head.split(b" ")
    # With more blanks nobody can tell where the user's name ends.
    names = readable(head) if len(words) > 2 or (len(words) == 1 and kind is BackendKind.CLIENT) else None
    user, database = (None, None) if names is not None else (words[0], words[1] if len(words) > 1 else None)
    return Title(
        kind=kind,
        user=readable(user) if user is not None else None,
        database=readable(database) if database is not None else None,
        host=readable(found["local"] or found["host"]),
        port=int(found["port"]) if found["port"] else None,
        activity=does,
        waiting=waiting,
        text=text,
        names=names,
    )


def _kind(head: bytes, activity: str | None) -> tuple[BackendKind, bytes]:
    """Of what stands before the client, and the names in it. A role may be called walsender too."""
    rest = head.removeprefix(b"walsender ")
    if rest == head:
        return BackendKind.CLIENT, head
    is_without_database = b" " not in rest
    does_sql = activity is not None and (activity in _IN_TRANSACTION or not _REPLICATION.fullmatch(activity))
    return (BackendKind.CLIENT, head) if is_without_database and does_sql else (BackendKind.WALSENDER, rest)


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
