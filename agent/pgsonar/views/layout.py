"""How the lines of a screen are made: wrapped under a head, fitted to a column.

The rule: no line is wider than the screen, and no text is cut without a mark.
"""

from __future__ import annotations


def fit(text: str, room: int) -> str:
    """Exactly `room` columns; `~` marks what was cut."""
    return f"{text if len(text) <= room else text[: room - 1] + '~':<{room}}"


def wrap(head: str, text: str, width: int) -> list[str]:
    """Lines that begin with a head, and go on beneath its end. A word wider than the screen stands alone."""
    lines, line = [], head
    for word in text.split(" "):
        if len(line) + len(word) > width and line.strip():
            lines.append(line.rstrip())
            line = " " * len(head)
        line += word + " "
    return [*lines, line.rstrip()]
