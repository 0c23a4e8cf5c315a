"""The running limits of a server, without a login.

The rule: what runs before what is written. pg_control holds the running max_connections of a primary, also where it was
given on the command line; on a standby it holds the primary's, so there the command line and the files come first
(src/backend/access/transam/xlog.c: XLogReportParameters). The reserved slots stand in no control file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pgsonar.model import Limits
from pgsonar.sources.control_file import ControlFile
from pgsonar.sources.settings import whole_number

_RESERVED = {"superuser_reserved_connections": 3, "reserved_connections": 0}  # with PostgreSQL's defaults

_DEFAULT = 100  # max_connections where nothing is written


def running_limits(
    control: ControlFile | None,
    arguments: Mapping[str, str],
    files: Mapping[str, str] | None,
    *,
    files_changed: bool,
    configured: int | None,
) -> Limits:
    """The limits by the best source there is.

    `files` is None when the configuration cannot be read; `files_changed` says it was changed after the server started,
    so that it may not be what runs; `configured` is targets[].max_connections.
    """
    limits = _most(control, arguments, files, files_changed=files_changed, configured=configured)
    if limits.max_connections is None:
        return limits
    reserved, guessed = 0, False
    for name, default in _RESERVED.items():
        value = whole_number(arguments.get(name))
        if value is None and files is not None:
            value = whole_number(files.get(name))
            guessed |= files_changed and value is not None
        if value is None:
            value = default
            guessed |= files is None
        reserved += value
    return replace(limits, reserved=reserved, guessed=limits.guessed or guessed)


def _most(
    control: ControlFile | None,
    arguments: Mapping[str, str],
    files: Mapping[str, str] | None,
    *,
    files_changed: bool,
    configured: int | None,
) -> Limits:
    by_control = Limits(control.max_connections, None, "pg_control") if control is not None else None
    if by_control is not None and control is not None and control.role != "standby":
        return by_control
    on_line = whole_number(arguments.get("max_connections"))
    written = whole_number(files.get("max_connections")) if files is not None else None
    by_rank = (
        None if on_line is None else Limits(on_line, None, "command line"),
        None if written is None else Limits(written, None, "configuration file", guessed=files_changed),
        None if configured is None else Limits(configured, None, "configured"),
        None if by_control is None else replace(by_control, guessed=True),
        None if files is None else Limits(_DEFAULT, None, "configuration file", guessed=True),
    )
    return next((limits for limits in by_rank if limits is not None), Limits())
