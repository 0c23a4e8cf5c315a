"""How late the scanner's thread is beside a Python thread that wants to be on time too, while others work."""

import threading
import time


def lateness(sampler, seconds, work):
    """Seconds late of each tick, and of each waking of a Python thread, ten milliseconds apart.

    `work(stop)` runs meanwhile in a thread of its own until `stop` is set. The sampler watches namespace 7.
    """
    stop = threading.Event()
    ours, theirs = [], []

    def wake():
        due = time.monotonic()
        while not stop.is_set():
            due += 0.01
            time.sleep(max(0.0, due - time.monotonic()))
            theirs.append(time.monotonic() - due)

    threads = [threading.Thread(target=work, args=(stop,)), threading.Thread(target=wake)]
    sampler.start()
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
        ours.append(sampler.stats(7).last_lateness / 1e9)
    stop.set()
    for thread in threads:
        thread.join()
    return ours, theirs
