"""Names for clients in metrics.

The rule: a few are named, and who is named stays named; a series that comes and goes helps nobody.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

Name = tuple[str, ...]  # of a client: database, user, address, application; empty where unknown


@dataclass(slots=True)
class StickyNames:
    """Gives the largest clients a name of their own for as long as they are there; the rest is `~other`."""

    places: int = 20
    _held: dict[Name, int] = field(default_factory=dict)

    def keep(self, sizes: Counter[Name]) -> set[Name]:
        """Who is named now. Who was named and is still there stays named, however small."""
        self._held = {name: sizes[name] for name in self._held if sizes[name]}
        for name, size in sizes.most_common():
            if len(self._held) >= self.places:
                break
            self._held.setdefault(name, size)
        return set(self._held)
