"""Signs of life of a cluster's processes: each writes a line a second, and its supervisor counts the seconds without.

A thread writes the line: compiling, evaluating and collecting garbage in the main thread do not stop it. A process that
is stopped (SIGSTOP, a debugger, a frozen container) runs no thread. A main thread that waits for ever in a process that
runs is not seen.
"""

import os
import threading
import time
from contextlib import suppress

LINE = "\x06\n"
SECONDS_BETWEEN_BEATS = 1.0


def start_heartbeat() -> None:
    """Writes LINE to the standard output, and starts the thread that does so until this process ends."""

    def beat():
        with suppress(OSError):  # the supervisor is gone
            while True:
                time.sleep(SECONDS_BETWEEN_BEATS)
                os.write(1, LINE.encode())

    os.write(1, LINE.encode())
    threading.Thread(target=beat, daemon=True).start()


class Silence:
    """How long a process has written nothing, in seconds in which its supervisor ran.

    While the supervisor itself stands still (Ctrl-Z, a laptop that sleeps) it reads nothing; that time does not count.
    """

    def __init__(self):
        """Begins now."""
        self.seconds = 0.0
        self.is_first = True  # the process has not written anything yet
        self._last_look = time.monotonic()

    def end(self) -> None:
        """Called when the process has written a line."""
        self.seconds = 0.0
        self.is_first = False

    def look(self) -> float:
        """Returns the seconds; called more often than once in SECONDS_BETWEEN_BEATS."""
        now = time.monotonic()
        self.seconds += min(now - self._last_look, SECONDS_BETWEEN_BEATS)
        self._last_look = now
        return self.seconds
