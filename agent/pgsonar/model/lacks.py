"""What the agent lacks, of all it could have."""

from __future__ import annotations

from typing import Literal, NamedTuple

Part = Literal["capability", "source", "login", "log", "exporter", "state"]


class Lack(NamedTuple):
    """Something that is missing or does not work, and what is lost by it."""

    part: Part
    name: str  # of few values: CAP_SYS_PTRACE, receivers.postgresql, otlp_http/backup
    sentence: str  # for people: of what, what is lost, what would change it
    subject: str = ""  # what it is missing for, where that is one of several: a server, a pooler, a file

    @property
    def text(self) -> str:
        return f"{self.subject}: {self.sentence}" if self.subject else self.sentence
