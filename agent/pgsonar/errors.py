"""Errors people meet, each with a hint and an exit code.

The rule: a message says what is wrong and where, the hint says what to type next. Neither carries a secret.
"""

from __future__ import annotations


class PgsonarError(Exception):
    """What went wrong, for people. `hint` is what to try; `exit_code` is what the command ends with."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(PgsonarError):
    """The configuration, the command line or another input is wrong: names the key or the line."""

    exit_code = 2


class ScanError(PgsonarError):
    """The native scanner could not do what it was asked to."""


class MissingPartError(PgsonarError):
    """An optional part (an extra, a program) is needed and is not there."""


class LoginError(PgsonarError):
    """A server or a console did not let us in, or did not answer. `state` is the SQLSTATE, if there was one."""

    state: str | None = None


class RecordingError(PgsonarError):
    """A recording is not one, is of a newer format, or cannot be read or written."""

    exit_code = 2
