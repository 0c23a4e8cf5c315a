"""How figures are written for people: ages, counts, shares. Short, without colour, the same everywhere."""

from __future__ import annotations


def age(seconds: float) -> str:
    """`41 s`, `6m10s`, `14m`, `3h05m`: two units at the most."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def count(number: int, noun: str) -> str:
    """`1 session`, `3 sessions`, `2 queries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def of_slots(used: int, ceiling: int | None) -> str:
    """`3 of 27 slots`, or what can be said without the ceiling."""
    return f"{used} of {ceiling} slots" if ceiling is not None else f"{count(used, 'slot')} (limit unknown)"


def out_of(number: int, limit: int | None) -> str:
    """`3 of 244`, or what can be said without the limit."""
    return str(number) if limit is None else f"{number} of {limit}"
