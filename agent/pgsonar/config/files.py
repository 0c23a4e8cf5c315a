"""Files that a configuration names, besides itself.

The rule: where it is to run here, each is opened only to say early that it cannot be, and that is an error. Where it is
only looked at (`pgsonar validate` on a laptop), none is opened, and one that is not there is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pgsonar.config.components import Components
from pgsonar.config.problems import Problems
from pgsonar.config.schema import FileExporter, OtlpExporter, PgbouncerReceiver, PostgresqlReceiver, TlsClient

_TLS = ("ca_file", "cert_file", "key_file")


def check_files(components: Components, problems: Problems, *, is_for_here: bool) -> None:
    """Every file that a component reads, and every directory that one writes into."""
    for kind, sections in components.sections.items():
        for component_id, section in sections.items():
            key = f"{kind}.{component_id}"
            if isinstance(section, OtlpExporter):
                named = _of_tls(section.tls, key)
            elif isinstance(section, PostgresqlReceiver | PgbouncerReceiver) and not is_for_here:
                # A login that fails for want of one is told while the agent runs, and is tried again.
                named = _of_login(section, key)
            else:
                named = iter(())
            for name, path in named:
                _check_opens(name, path, problems) if is_for_here else _remark(name, path, problems)
            if isinstance(section, FileExporter) and section.path:
                _check_writable(section.path, f"{key}.path", problems, is_for_here=is_for_here)


def _of_tls(tls: TlsClient, key: str) -> Iterator[tuple[str, str]]:
    for name in _TLS:
        if (path := getattr(tls, name)) is not None:
            yield f"{key}.tls.{name}", path


def _of_login(login: PostgresqlReceiver | PgbouncerReceiver, key: str) -> Iterator[tuple[str, str]]:
    if login.passfile is not None:
        yield f"{key}.passfile", login.passfile
    yield from _of_tls(login.tls, key)


def _check_opens(key: str, path: str, problems: Problems) -> None:
    try:
        Path(path).open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "not the name of a file"
        problems.error(key, f"{path!r} cannot be read: {reason}")


def _remark(key: str, path: str, problems: Problems) -> None:
    if not _exists(path):
        problems.warn(key, f"{path!r} is not on this machine")


def _check_writable(path: str, key: str, problems: Problems, *, is_for_here: bool) -> None:
    directory = str(Path(path).parent)
    if not is_for_here:
        _remark(key, directory, problems)
    elif Path(path).is_dir():
        problems.error(key, f"expected the name of a file, got {path!r}")
    elif not Path(directory).is_dir():
        problems.error(key, f"the directory {directory!r} does not exist", f"mkdir -p {directory}")


def _exists(path: str) -> bool:
    try:
        Path(path).stat()
    except (OSError, ValueError):
        return False
    return True
