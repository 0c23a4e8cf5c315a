"""How much memory the agent takes, beside how much it may.

The rule: as the Collector's memory limiter: above the soft limit the least important is not taken in any more, above
the hard one what can be given up is. Resident memory counts, as the kernel's limits do.
"""

from __future__ import annotations

import ctypes
import gc
import logging

from pgsonar.config.schema import MemoryLimiter
from pgsonar.daemon.exporting import Exporting
from pgsonar.daemon.own import resident

log = logging.getLogger("pgsonar")

MIB = 1 << 20


class MemoryLimit:
    """Keeps within `processors.memory_limiter`."""

    def __init__(self, settings: MemoryLimiter) -> None:
        spike = settings.limit_mib / 5 if settings.spike_limit_mib is None else settings.spike_limit_mib
        self._hard = settings.limit_mib * MIB
        self._soft = self._hard - round(spike * MIB)
        self.problem: str | None = None  # while it is above the soft limit

    def keep(self, exporting: Exporting) -> None:
        """Looks, and does what is needed."""
        taken = resident()
        if taken > self._hard:
            exporting.shed()
            taken = _give_back()
        exporting.refuses_metrics = taken > self._soft
        if exporting.refuses_metrics and self.problem is None:
            log.warning(
                "%d MiB of %d are taken: metrics are not taken in until there is room (processors.memory_limiter)",
                taken // MIB,
                self._hard // MIB,
            )
        elif not exporting.refuses_metrics and self.problem is not None:
            log.info("%d MiB are taken: metrics are taken in again", taken // MIB)
        self.problem = (
            f"{taken // MIB} MiB of {self._hard // MIB} are taken: metrics are not taken in"
            if exporting.refuses_metrics
            else None
        )


def _give_back() -> int:
    """Frees what nothing refers to, and returns it to the kernel; what is resident then."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident()
