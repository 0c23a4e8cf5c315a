"""Where in a line of PostgreSQL's stderr log its severity stands: log_line_prefix is learned from the log itself.

The rule: the leftmost severity counts before which nothing stands but a prefix as it has been seen in this log. What a
prefix quotes is chosen by others (names of users, databases, applications), and so is what follows a severity; a line
that could be read in two ways says nothing. The shape of a line is that of send_message_to_server_log and
log_line_prefix in src/backend/utils/error/elog.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What the server alone writes: clients print the other labels too, and what an archive_command or a COPY PROGRAM
# prints stands in the same log without a prefix.
_WITNESSES = frozenset({"LOG", "STATEMENT"})
_ANCHOR = re.compile(r":  | : ")
_KNOWN = re.compile(
    r"(?:DEBUG|INFO|NOTICE|WARNING|ERROR|LOG|FATAL|PANIC|DETAIL|HINT|QUERY|CONTEXT|LOCATION|BACKTRACE|STATEMENT)$"
)
# A label in another language (`lc_messages`) is none that counts, but what follows it is quoted. French ones have a
# blank before their colon (src/backend/po/fr.po).
_OTHER = re.compile(r"\b[^\W\d_a-z]{1,20}$")
_FRENCH = re.compile(r"\b(?:DÉTAIL|ASTUCE|REQUÊTE|CONTEXTE|EMPLACEMENT|APPEL|INSTRUCTION)$")
_LONGEST_LABEL = 20
_LONGEST_PREFIX = 600
_MOST_SHAPES = 64
# User and database of a startup packet may hold line breaks, which a prefix does not escape; what they can forge is as
# long as two names (NAMEDATALEN) and what stands between them.
_TWO_NAMES = 160

_TIME = r"\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?:\.\d+)?)?"
# Capitals alone (but for that of Guam): in `UTCapp` of %t%u a name has begun.
_ZONE = r"(?: (?:[A-Z]{2,6}|ChST|[+-]\d\d(?::?\d\d)?)(?!\w))?"
_ADDRESS = (
    r"(?:\[local\]|\d{1,3}(?:\.\d{1,3}){3}(?:\(\d+\))?|(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?:%\w+)?(?:\(\d+\))?)"
)
_NUMBER = r"(?:[0-9a-f]{8}\.[0-9a-f]+|\d+(?:\.\d+)?)"  # %c, or %p, %l, %n, %x, %Q
# GetBackendTypeDesc in src/backend/utils/init/miscinit.c; a session is a "client backend".
_BACKEND_TYPE = (
    r"(?:client backend|postmaster|checkpointer|background writer|walwriter|startup|archiver|logger"
    r"|autovacuum (?:launcher|worker)|logical replication (?:launcher|worker)|parallel worker|background worker"
    r"|walsender|walreceiver|walsummarizer|slotsync worker|standalone backend|io worker|not initialized)"
)
_TOKEN = re.compile(
    rf"(?P<time>{_TIME}(?P<zone>{_ZONE}))|(?P<address>{_ADDRESS})|(?P<transaction>\d+/\d+)|(?P<number>{_NUMBER})"
    rf"|(?P<type>{_BACKEND_TYPE})|(?P<blanks> +)"
    r"""|(?P<name>\[unknown\]|[^\s@:,=()\[\]|<>;/"'{}]+)|(?P<other>.)""",
    re.DOTALL,
)
_TYPED = {
    "time": _TIME + _ZONE,
    "address": f"{_ADDRESS}?",  # empty for the server's own processes
    "transaction": r"(?:\d+/\d+)?",  # empty outside of one
    "number": _NUMBER,
    "type": _BACKEND_TYPE,
}


class _Shape(NamedTuple):
    """What one prefix looked like."""

    example: str
    whole: str  # a pattern
    lead: str  # the pattern of what stands before the first name
    is_typed: bool  # the lead tells a time, a process or the like: nobody else begins a line so


def _shape(prefix: str) -> _Shape:
    pieces, typed = [""], False
    for token in _TOKEN.finditer(prefix):
        kind, text = token.lastgroup or "other", token[0]
        if kind == "name":
            pieces.append("")
        elif kind == "blanks":
            pieces[-1] += " +" if len(text) == 1 else " *"  # more of them fill up a width: %-10u
        elif kind == "time" and not token["zone"]:
            pieces[-1] += _TIME  # a name follows its zone at once: %t%a
        else:
            pieces[-1] += _TYPED.get(kind) or re.escape(text)
            typed = typed or (kind in _TYPED and len(pieces) == 1)
    lead, *more = pieces
    if not more:
        return _Shape(prefix, lead, lead, typed)
    # What stands between names is looked for from the left, once: names with many blanks must not cost more.
    between = "".join(f"(?>.*?{piece})" for piece in more[:-1] if piece)
    return _Shape(prefix, f"{lead}{between}.*{more[-1]}", lead, typed)


class Prefixes:
    """The prefixes of one log, as far as they have been seen."""

    def __init__(self, others: Iterable[Prefixes] = ()) -> None:
        known = {shape.whole: shape for other in others for shape in other.shapes}
        self.shapes: list[_Shape] = list(known.values())[:_MOST_SHAPES]
        self._mute = 0  # characters that the names of a broken prefix may still take
        self._compile()

    def begin(self, line: str) -> bool:
        """Whether a line can begin an entry; asked of every line, in their order."""
        mute, self._mute = self._mute, max(0, self._mute - len(line) - 1)
        if line.startswith("\t"):  # append_with_tabs: a message goes on
            return False
        if not mute and ":  " in line:
            return True
        if ":  " not in line and " : " not in line and self._typed_leads.match(line):
            self._mute = _TWO_NAMES
        return mute < len(line)

    def split(self, line: str) -> tuple[str, str] | None:
        """The label of a line and what it says, if that is certain; learns from lines that have but one."""
        labels = _labels(line)
        alone = None
        for number, (start, end, label) in enumerate(labels):
            if start > _LONGEST_PREFIX:
                break
            if self._is_prefix(line[:start], label):
                return label, line[end:]
            alone = (start, end, label) if number == 0 else None
        if alone is None:
            return None
        start, end, label = alone
        return (label, line[end:]) if self._learn(line[:start], label) else None

    def _is_prefix(self, text: str, label: str) -> bool:
        # Before a server's own process has a name, %q ends its prefix.
        return bool(self._wholes.fullmatch(text) or (label and self._leads.fullmatch(text)))

    def _learn(self, prefix: str, label: str) -> bool:
        if not label or len(prefix) > _LONGEST_PREFIX:
            return False
        shape = _shape(prefix)
        if not (
            label in _WITNESSES
            or self._typed_leads.match(prefix)
            or (not self.shapes and (shape.is_typed or not prefix))
        ):
            return False
        covers = re.compile(shape.whole)
        kept = [known for known in self.shapes if not covers.fullmatch(known.example)]
        if len(kept) >= _MOST_SHAPES:
            kept.remove(max(kept, key=lambda known: len(known.whole)))
        self.shapes = [*kept, shape]
        self._compile()
        return True

    def _compile(self) -> None:
        self._wholes = _any_of(shape.whole for shape in self.shapes)
        self._leads = _any_of({shape.lead for shape in self.shapes if shape.lead})
        self._typed_leads = _any_of({shape.lead for shape in self.shapes if shape.is_typed})


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")


def _labels(line: str) -> Iterator[tuple[int, int, str]]:
    """All in a line that may be its label, from the left: where it begins and ends; "" for one in no English."""
    for anchor in _ANCHOR.finditer(line):
        begins = max(0, anchor.start() - _LONGEST_LABEL)
        before = line[begins : anchor.start()]
        known = _KNOWN.search(before) if anchor[0] == ":  " else None
        if known is not None:
            yield begins + known.start(), anchor.end(), known[0]
        elif other := (_OTHER if anchor[0] == ":  " else _FRENCH).search(before):
            yield begins + other.start(), anchor.end(), ""
