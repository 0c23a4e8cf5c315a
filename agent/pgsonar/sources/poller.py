"""Asks one thing again and again, in a thread of its own.

The rule: whoever is asked may hang for ever and delays nothing else. There is never more than one question under way,
a failure makes the pauses longer, and only the newest answer is kept.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pgsonar.errors import PgsonarError

log = logging.getLogger("pgsonar")

Answer = TypeVar("Answer")

FIRST_PAUSE = 1.0  # seconds after a failure, doubled up to
LONGEST_PAUSE = 60.0
JITTER = 0.2


class Poller(Generic[Answer]):
    """Polls `read` every `interval` seconds once started."""

    def __init__(self, name: str, read: Callable[[], Answer], close: Callable[[], None], interval: float) -> None:
        self.name = name
        self.interval = interval
        self.error: PgsonarError | None = None  # of the last try, if that failed
        self.asked_since: float | None = None  # monotonic; the question that is under way
        self.answers = 0
        self.failures = 0
        self._read = read
        self._close = close
        self._latest: Answer | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to ask."""
        self._thread = threading.Thread(target=self._work, name=f"pgsonar {self.name}", daemon=True)
        self._thread.start()

    def stop(self, within: float) -> None:
        """Asks no more; waits so many seconds for a question that is under way, which ends with the process anyway."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(within)

    def ask_once(self, within: float) -> None:
        """Asks one time, and waits for the answer no longer than so many seconds."""
        thread = threading.Thread(target=self._try, daemon=True)
        thread.start()
        thread.join(within)
        if thread.is_alive():
            self.error = PgsonarError(f"no answer within {within:g} s", "the server or the way to it hangs")

    def take(self) -> Answer | None:
        """The newest answer, once."""
        with self._lock:
            latest, self._latest = self._latest, None
            return latest

    @property
    def holds(self) -> int:
        """How long an answer holds, ns: until three in a row have not come, and the time they take."""
        return round((3 * self.interval + 5) * 1e9)

    @property
    def problem(self) -> str | None:
        """What keeps answers from coming; None while they come."""
        error, since = self.error, self.asked_since
        if error is not None:
            return f"{self.name}: {error}" + (f" ({error.hint})" if error.hint else "")
        if since is not None and time.monotonic() - since > self.interval + 5:
            return f"{self.name}: no answer for {time.monotonic() - since:.0f} s"
        return None

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while True:
            worked = self._try()
            wait = self.interval if worked else pause
            pause = FIRST_PAUSE if worked else min(2 * pause, LONGEST_PAUSE)
            if self._stop.wait(wait * random.uniform(1 - JITTER, 1 + JITTER) if not worked else wait):  # noqa: S311
                break
        self._close()

    def _try(self) -> bool:
        self.asked_since = time.monotonic()
        try:
            answer = self._read()
        except PgsonarError as error:
            self._fail(error)
            return False
        except Exception as error:  # an answer nobody foresaw must not end the thread
            log.debug("%s failed", self.name, exc_info=True)
            self._fail(PgsonarError(f"unexpected {type(error).__name__}: {error}"))
            return False
        finally:
            self.asked_since = None
        with self._lock:
            self._latest = answer
        self.answers += 1
        if self.error is not None:
            log.info("%s answers again", self.name)
        self.error = None
        return True

    def _fail(self, error: PgsonarError) -> None:
        self.failures += 1
        if self.error is None or str(self.error) != str(error):
            hint = f" ({error.hint})" if error.hint else ""
            log.warning("%s: %s%s; what needs no login goes on", self.name, error, hint)
        self.error = error
