"""The running limits of a server, without a login.

The rule: what runs before what is written. pg_control holds the running max_connections of a primary, also where it was
given on the command line; on a standby it holds the primary's, so there the command line and the files come first
(src/backend/access/transam/xlog.c: XLogReportParameters). The reserved slots stand in no control file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pgsonar.model import Limits
from pgsonar.sources.control_file import ControlFile
from pgsonar.sources.settings import whole_number

_RESERVED = {"superuser_reserved_connections": 3, "reserved_connections": 0}  # with PostgreSQL's defaults

# What the limit of children is made of beside max_connections, with PostgreSQL's defaults.
CHILDREN = {"max_wal_senders": 10, "max_worker_processes": 8, "autovacuum_max_workers": 3}
_OWN_LIMIT_SINCE = 18

_DEFAULT = 100  # max_connections where nothing is written


def running_limits(
    control: ControlFile | None,
    arguments: Mapping[str, str],
    files: Mapping[str, str] | None,
    *,
    files_changed: bool,
    files_partial: bool = False,
    configured: int | None,
    major: int | None = None,
) -> Limits:
    """The limits by the best source there is.

    `files` is None when the configuration cannot be read; `files_changed` says it was changed after the server started,
    so that it may not be what runs, `files_partial` that some of it may not be read, so that it may say otherwise;
    `configured` is targets[].max_connections.
    """
    limits = next(_by_rank(control, arguments, files, configured), Limits())
    if limits.max_connections is None:
        return limits
    guessed = limits.guessed or (limits.source == "configuration file" and (files_changed or files_partial))
    reserved = 0
    for name, default in _RESERVED.items():
        value = whole_number(arguments.get(name))
        if value is None and files is not None:
            value = whole_number(files.get(name))
            guessed |= files_partial or (files_changed and value is not None)
        reserved += default if value is None else value
    # What was neither given as an argument nor can be read is PostgreSQL's default, most likely.
    guessed |= files is None and not _RESERVED.keys() <= arguments.keys()
    return replace(
        limits, reserved=reserved, guessed=guessed, children=_children(major, limits, control, arguments, files)
    )


def child_limit(major: int, settings: Mapping[str, int]) -> int:
    """How many children a postmaster has at most: more than slots, so that who is refused can be told so.

    Up to 17 it counts every child that is a backend or a worker (postmaster.c: MaxLivePostmasterChildren); since 18
    sessions and walsenders have a limit of their own (pmchild.c: InitPostmasterChildSlots).
    """
    counted = settings["max_connections"] + settings["max_wal_senders"]
    if major < _OWN_LIMIT_SINCE:
        counted += settings["max_worker_processes"] + settings["autovacuum_max_workers"] + 1  # its launcher
    return 2 * counted


def _children(
    major: int | None,
    limits: Limits,
    control: ControlFile | None,
    arguments: Mapping[str, str],
    files: Mapping[str, str] | None,
) -> int | None:
    if major is None or limits.max_connections is None or (control is None and files is None):
        return None
    settings = dict(CHILDREN)
    for told in (files or {}, arguments):
        settings |= {name: value for name in CHILDREN if (value := whole_number(told.get(name))) is not None}
    if control is not None and control.role != "standby":
        settings |= {"max_worker_processes": control.max_worker_processes, "max_wal_senders": control.max_wal_senders}
    return child_limit(major, settings | {"max_connections": limits.max_connections})


def _by_rank(
    control: ControlFile | None, arguments: Mapping[str, str], files: Mapping[str, str] | None, configured: int | None
) -> Iterator[Limits]:
    """What each source says of max_connections, the best first."""
    if control is not None and control.role != "standby":
        yield Limits(control.max_connections, None, "pg_control")
    on_line = whole_number(arguments.get("max_connections"))
    if on_line is not None:
        yield Limits(on_line, None, "command line")
    written = whole_number(files.get("max_connections")) if files is not None else None
    if written is not None:
        yield Limits(written, None, "configuration file")
    if configured is not None:
        yield Limits(configured, None, "configured")
    if control is not None:
        yield Limits(control.max_connections, None, "pg_control", guessed=True)
    if files is not None:
        yield Limits(_DEFAULT, None, "configuration file", guessed=True)
