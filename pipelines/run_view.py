"""Draws a run while it goes on: which component, how long, epoch and loss."""

import logging
import time

from rich.console import Console
from rich.markup import escape

SECONDS_BETWEEN_LINES = 5.0  # on something that is no terminal


class RunView(logging.Handler):
    """Turns the log records of TFX's LocalDagRunner and of modules.progress into progress.

    The runner has no callbacks; its log messages, which this reads by their format strings, are what it tells.
    """

    def __init__(self, console: Console, quiet: bool = False):
        """`quiet` draws nothing; the nodes are still noted in `executed` and `cached`."""
        super().__init__(logging.INFO)
        self._console = console
        self._quiet = quiet
        self._status = None if quiet or not console.is_terminal else console.status("")
        self._node_started = 0.0
        self._line_printed = 0.0
        self._is_cached = False
        self.node: str | None = None
        self.executed: list[str] = []
        self.cached: list[str] = []

    def __enter__(self) -> "RunView":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_) -> None:
        if self._status:
            self._status.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Handles one log record; those that tell no progress are passed over."""
        if record.msg == "Component %s is running.":
            self.node, self._node_started, self._is_cached = record.args[0], time.monotonic(), False
            self._line_printed = self._node_started
            self._draw(self.node)
        elif record.msg == "A cached execution %d is used.":
            self._is_cached = True
        elif record.msg == "Component %s is finished.":
            (self.cached if self._is_cached else self.executed).append(record.args[0])
            took = "from cache" if self._is_cached else f"{time.monotonic() - self._node_started:5.1f} s"
            self._print(f"  {record.args[0]:<24}{took:>12}")
        elif hasattr(record, "epoch_done"):
            self._epoch(record.epoch_done)
        elif hasattr(record, "note"):
            self._print(f"    {record.note}")

    def _epoch(self, done: dict) -> None:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in done["metrics"].items())
        text = f"{done['model']}  epoch {done['epoch']}/{done['epochs']}  {figures}"
        self._draw(text)
        if not self._status and time.monotonic() - self._line_printed > SECONDS_BETWEEN_LINES:
            self._line_printed = time.monotonic()
            self._print(f"  {text}")

    def _draw(self, text: str) -> None:
        if self._status:
            self._status.update(escape(text))

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._console.print(escape(text), highlight=False, soft_wrap=True)
