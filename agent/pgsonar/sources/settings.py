"""Server settings told without the server: its command line and its configuration files.

The rule: files say what was written, not what runs; who uses a value from a file compares the file's time with the
server's start. Syntax: https://www.postgresql.org/docs/current/config-setting.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pgsonar.sources.regular import SETTINGS_MOST, read_regular

# Nothing is given back once it is matched (the `+` behind `*`), or a line of blanks takes the cube of its length.
_LINE = re.compile(r"\s*+([A-Za-z_][\w.]*+)(?:\s*+=\s*+|\s++)('(?:[^'\\]|''|\\.)*+'|[^\s#']++)?\s*+(?:#.*)?$")
_INCLUDES = ("include", "include_if_exists", "include_dir")
_DEPTH = 10  # as PostgreSQL's CONF_FILE_MAX_DEPTH
_VISITS = 256  # files and directories: one that includes itself twice would be read a thousand times
_SHORT = {
    "-N": "max_connections",
    "-p": "port",
    "-D": "data_directory",
    "-k": "unix_socket_directories",
    "-h": "listen_addresses",
}


def command_line(raw: bytes) -> dict[str, str]:
    """Settings given as arguments: `-c name=value`, `--name=value`, `-N 30`, `-p5433`. The last one wins."""
    arguments = [part.decode("utf-8", "surrogateescape") for part in raw.split(b"\0") if part][1:]
    settings: dict[str, str] = {}
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        index += 1
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            if equals:
                _put(settings, name, value)
            continue
        flag, value = argument[:2], argument[2:]
        if flag not in _SHORT and flag != "-c":
            continue
        if not value and index < len(arguments):
            value = arguments[index]
            index += 1
        if flag == "-c":
            name, _, value = value.partition("=")
            _put(settings, name, value)
        else:
            settings[_SHORT[flag]] = value
    return settings


def _put(settings: dict[str, str], name: str, value: str) -> None:
    settings[name.strip().lower().replace("-", "_")] = value.strip()


class Files:
    """What configuration files say, and which of them were read. `resolve` maps a server's path to one we can open."""

    def __init__(self, resolve: Callable[[str], Path]) -> None:
        self._resolve = resolve
        self.settings: dict[str, str] = {}
        self.read: list[Path] = []
        self.refused: list[str] = []
        self._visits = 0

    def add(self, path: str, depth: int = 0) -> None:
        """Reads a file and what it includes; later settings win."""
        self._visits += 1
        if self._visits > _VISITS:
            return
        try:
            real = self._resolve(path)
            text = read_regular(real, SETTINGS_MOST).decode("utf-8", "replace")
        except FileNotFoundError:
            return
        except OSError:
            self.refused.append(path)
            return
        self.read.append(real)
        for line in text.splitlines():
            found = _LINE.match(line)
            if found is None or found[2] is None:
                continue
            name, value = found[1].lower(), _unquoted(found[2])
            if name not in _INCLUDES:
                self.settings[name] = value
            elif depth < _DEPTH:
                for included in self._included(name, value, path):
                    self.add(included, depth + 1)

    def _included(self, name: str, value: str, within: str) -> Iterable[str]:
        path = value if value.startswith("/") else f"{within.rpartition('/')[0]}/{value}"
        if name != "include_dir":
            return [path]
        try:
            names = sorted(entry.name for entry in self._resolve(path).iterdir())
        except FileNotFoundError:
            return []
        except OSError:
            self.refused.append(path)
            return []
        return [f"{path}/{entry}" for entry in names if entry.endswith(".conf") and not entry.startswith(".")]

    @property
    def newest(self) -> float:
        """Seconds since the epoch of the last change of any file that was read."""
        times = [0.0]
        for path in self.read:
            try:
                times.append(path.stat().st_mtime)
            except OSError:
                continue
        return max(times)


def _unquoted(value: str) -> str:
    if not value.startswith("'"):
        return value
    return re.sub(r"''|\\(.)", lambda found: found[1] or "'", value[1:-1])


def whole_number(value: str | None) -> int | None:
    """A setting that is a plain number (decimal, 0x or 0 octal, as strtol reads it); None when it is not."""
    if value is None:
        return None
    try:
        return int(value, 8) if re.fullmatch(r"0[0-7]+", value) else int(value, 0)
    except ValueError:
        return None
