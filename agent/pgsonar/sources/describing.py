"""What is known of one postmaster, without a login: its processes, files and sockets.

The rule: what may not be read is named in `missing` with the privilege that would help, and what is concluded rather
than read is marked as a guess. What the server writes while we read it stands as it was read before.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pgsonar.model import Endpoint, Process, Server, Socket
from pgsonar.sources.control_file import ControlFile, read_control_file
from pgsonar.sources.kin import Kin
from pgsonar.sources.limits import running_limits
from pgsonar.sources.postmasters import Postmaster
from pgsonar.sources.processes import Processes
from pgsonar.sources.regular import RECORD_MOST, read_regular
from pgsonar.sources.settings import Files, command_line, whole_number
from pgsonar.sources.titles import PREFIX, learn_cluster_name, parse_title, readable

_PATH_VERSION = re.compile(r"/(?:postgresql|pgsql|postgres)[/-]?(\d{2}|9\.\d)/")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound to
_GUESSED = 5432
_NAMED = 5  # programs
_STRANGERS = "children that run another program hold no slot: {} (adopted, as the first process of a container is)"

ReadSockets = Callable[[str], Sequence[Socket]]
ReadInodes = Callable[[int], Sequence[int] | None]


class Describer:
    """Reads what can be read of a postmaster."""

    def __init__(
        self,
        processes: Processes,
        *,
        read_table: ReadSockets,
        read_listeners: ReadSockets,
        read_inodes: ReadInodes,
        hostname: str,
        host_id: str | None,
    ) -> None:
        self._processes = processes
        self._read_table = read_table  # of a directory such as /proc/1234/net
        self._read_listeners = read_listeners  # of a process, such as /proc/1234
        self._read_inodes = read_inodes  # of all sockets a process has open; None where looking is refused
        self._hostname = hostname
        self._host = host_id or hostname
        self._controls: dict[Process, ControlFile] = {}
        self.unread: set[Process] = set()  # whose pg_control was read before and not at the last try
        self._own_numbers: dict[str, int] = {}

    def keep(self, postmasters: Iterable[Process]) -> None:
        """Forgets all others."""
        there = set(postmasters)
        self._controls = {key: control for key, control in self._controls.items() if key in there}
        self.unread &= there

    def describe(self, postmaster: Postmaster) -> Server:
        """The server that it is."""
        processes, pid = self._processes, postmaster.pid
        missing: list[str] = []
        arguments = command_line(postmaster.cmdline)
        titles, strangers = self._children(pid)
        directory = self._data_directory(pid, arguments)
        files = self._files(pid, arguments, directory)
        cluster_name = learn_cluster_name(titles) or _cluster_name(arguments, files, titles)
        if files is not None and "data_directory" in files.settings and "data_directory" not in arguments:
            directory = files.settings["data_directory"]
        control = self._control(postmaster, directory)
        if control is None:
            missing.append("pg_control (running limits, role): run as the postgres user, or with CAP_DAC_READ_SEARCH")
        if files is not None and files.refused:
            missing.append(f"{', '.join(files.refused)} (limits are a guess without it): run as the postgres user")
        uid = processes.uid(pid) or 0
        listeners = self.listeners(pid)
        port, guessed = self._port(postmaster, arguments, directory, files, listeners, titles, uid, cluster_name)
        own = self._own(listeners, pid, uid, port)
        address = _only_address(own or ()) or self._hostname
        version = self._version(pid, directory, postmaster.cmdline)
        return Server(
            id=self._id(pid, control, directory, port),
            pid=pid,
            started=postmaster.started,
            netns=self.namespace(pid),
            port=port,
            address=address,
            system_identifier=str(control.system_identifier) if control is not None else None,
            listens_on=None if own is None else tuple(sorted({row.local.address for row in own})),
            port_guessed=guessed,
            data_directory=directory,
            version=version,
            role=control.role if control is not None else None,
            cluster_name=cluster_name,
            uid=uid,
            limits=running_limits(
                control,
                arguments,
                files.settings if files is not None and files.read else None,
                files_changed=files is not None and files.newest > self._started_unix(postmaster),
                files_partial=files is not None and bool(files.refused),
                configured=None,
                major=whole_number((re.match(r"\d*", version or "") or [""])[0]),
            ),
            missing=tuple(missing),
            notes=(_STRANGERS.format(strangers),) if strangers else (),
        )

    def _control(self, postmaster: Postmaster, directory: str | None) -> ControlFile | None:
        """pg_control. The server writes it while we read: what was read before stands until it is read again."""
        key = postmaster.pid, postmaster.started
        read = read_control_file(self._processes.path_seen_by(postmaster.pid, directory)) if directory else None
        if read is not None:
            self._controls[key] = read
            self.unread.discard(key)
        elif key in self._controls:
            self.unread.add(key)
        return self._controls.get(key)

    def _children(self, pid: int) -> tuple[list[bytes], str]:
        """The titles of its own, and what the others are that it has been given."""
        kin = Kin(self._processes, pid)
        titles, strangers = [], Counter[str]()
        for child in self._processes.children(pid):
            raw = self._processes.cmdline(child)
            if not raw:
                continue
            if kin.has(child, raw):
                titles.append(raw)
            else:
                strangers[readable(self._processes.comm(child).encode()) or "?"] += 1
        told = [f"{number} {name}" for name, number in strangers.most_common(_NAMED)]
        return titles, ", ".join(told) + (", and others" if len(strangers) > _NAMED else "")

    def _data_directory(self, pid: int, arguments: dict[str, str]) -> str | None:
        written = arguments.get("data_directory") or arguments.get("pgdata")
        if written and written.startswith("/"):
            return written
        # The postmaster works in its data directory (src/backend/utils/init/miscinit.c: ChangeToDataDir).
        return self._processes.link(pid, "cwd")

    def _files(self, pid: int, arguments: dict[str, str], directory: str | None) -> Files | None:
        main = arguments.get("config_file") or (f"{directory}/postgresql.conf" if directory else None)
        if main is None:
            return None
        files = Files(lambda path: self._processes.path_seen_by(pid, path))
        files.add(main)
        where = arguments.get("data_directory") or files.settings.get("data_directory") or directory
        if where:
            files.add(f"{where}/postgresql.auto.conf")
        return files

    def _started_unix(self, postmaster: Postmaster) -> float:
        # Files written by whoever starts the server come moments before it; a second forgives coarse clocks.
        return time.time() - postmaster.age + 1.0

    def _port(  # noqa: PLR0917 - each is a place where the port may stand
        self,
        postmaster: Postmaster,
        arguments: dict[str, str],
        directory: str | None,
        files: Files | None,
        listeners: Sequence[Socket],
        titles: list[bytes],
        uid: int,
        cluster_name: str,
    ) -> tuple[int | None, bool]:
        """The port, and whether it is a guess."""
        by_file = self._port_of_pid_file(postmaster.pid, directory)
        if by_file is not None:
            return by_file, False
        written = whole_number(arguments.get("port"))
        if written is None and files is not None:
            written = whole_number(files.settings.get("port"))
        if written is not None:
            return written, False
        listening = {row.local.port for row in listeners if row.uid == uid}
        if len(listening) == 1:
            return listening.pop(), True
        peers = set()
        for raw in titles:
            title = parse_title(raw, cluster_name, postmaster.cmdline)
            if title.host and title.port:
                peers.add(Endpoint(title.host, title.port))
        table = self._table(postmaster.pid) if peers else ()
        # A client's port may serve it for two servers at once, and stands in rows of TIME_WAIT: most peers decide.
        joined = Counter(
            row.local.port for row in table if row.inode and row.remote in peers and row.local.port in listening
        ).most_common(2)
        if joined and (len(joined) == 1 or joined[0][1] > joined[1][1]):
            return joined[0][0], True
        return (_GUESSED, True) if _GUESSED in listening else (None, True)

    def _port_of_pid_file(self, pid: int, directory: str | None) -> int | None:
        """Line 4 of postmaster.pid, if its first line is this process by any of its numbers."""
        if directory is None:
            return None
        try:
            lines = _record(self._processes.path_seen_by(pid, directory) / "postmaster.pid").splitlines()
        except OSError:
            return None
        if len(lines) < 4 or whole_number(lines[0].strip()) not in self._processes.pids_in_namespaces(pid):
            return None
        return whole_number(lines[3].strip())

    def _table(self, pid: int) -> Sequence[Socket]:
        try:
            return self._read_table(self._processes.net_directory(pid))
        except OSError:
            return []

    def listeners(self, pid: int) -> Sequence[Socket]:
        """All that listens in the network namespace of a process."""
        try:
            return self._read_listeners(f"{self._processes.root}/{pid}")
        except OSError:
            return []

    def _own(self, listeners: Sequence[Socket], pid: int, uid: int, port: int | None) -> list[Socket] | None:
        """Its own listeners on its port: the sockets it has open or, where that may not be seen, those of its user.

        None where neither tells.
        """
        there = [row for row in listeners if row.local.port == port]
        inodes = self._read_inodes(pid) if there else None
        if inodes:
            return [row for row in there if row.inode in inodes]
        return [row for row in there if row.uid == uid] or None

    def namespace(self, pid: int) -> int:
        """The number of its network namespace; where that may not be read a small one of our own."""
        inode = self._processes.network_namespace(pid)
        if inode is not None:
            return inode
        # /proc/PID/net is a directory of the namespace, with an inode of its own, and may be looked at by anybody.
        try:
            there = os.stat(f"{self._processes.net_directory(pid)}/tcp")
            key = f"{there.st_dev}:{there.st_ino}"
        except OSError:
            key = f"pid {pid}"
        return self._own_numbers.setdefault(key, 1 + len(self._own_numbers))

    def _version(self, pid: int, directory: str | None, cmdline: bytes) -> str | None:
        if directory:
            try:
                return _record(self._processes.path_seen_by(pid, directory) / "PG_VERSION").strip()
            except OSError:
                pass
        program = self._processes.link(pid, "exe") or cmdline.split(b"\0")[0].decode("utf-8", "replace")
        found = _PATH_VERSION.search(program)
        return found[1] if found else None

    def _id(self, pid: int, control: ControlFile | None, directory: str | None, port: int | None) -> str:
        host = self._host
        if control is not None and directory is not None:
            return f"{control.system_identifier}@{host}:{directory}{self._volume(pid, directory)}"
        return f"{host}:{port if port is not None else directory or '?'}"

    def _volume(self, pid: int, directory: str) -> str:
        """What tells data directories of one path in two containers apart; nothing for a server that shares our root.

        A standby has its primary's system identifier. File system and inode stay what they are when a container starts
        again with its volume.
        """
        try:
            root, ours = os.stat(f"{self._processes.root}/{pid}/root"), os.stat("/")
            if (root.st_dev, root.st_ino) == (ours.st_dev, ours.st_ino):
                return ""
            seen = self._processes.path_seen_by(pid, directory)
            return f"#{os.statvfs(seen).f_fsid:x}.{os.stat(seen).st_ino}"
        except OSError:
            return ""


def _record(path: Path) -> str:
    """A small file that PostgreSQL writes."""
    return read_regular(path, RECORD_MOST).decode("utf-8", "replace")


def _cluster_name(arguments: dict[str, str], files: Files | None, titles: Iterable[bytes]) -> str:
    """As it was written, where titles are too short to tell it, and say nothing else."""
    written = arguments.get("cluster_name") or (files.settings.get("cluster_name") if files is not None else None)
    if not written or not written.isascii():  # PostgreSQL lets nothing else stand in a title
        return ""
    before = PREFIX + f"{written}: ".encode("ascii")
    return written if any(title.startswith(before) for title in titles) else ""


def _only_address(listeners: Sequence[Socket]) -> str | None:
    """The one address it listens on, where that is no wildcard and can be reached from elsewhere."""
    addresses = {row.local.address for row in listeners}
    if len(addresses) == 1:
        address = addresses.pop()
        return None if address in _WILDCARDS else address
    return None
