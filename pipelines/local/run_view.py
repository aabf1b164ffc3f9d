"""Shows the progress of a run: component, time, epoch and loss, records done and total."""

import logging
import threading
import time

from rich.console import Console
from rich.markup import escape

from stillhouse.modules.visible import visible

SECONDS_BETWEEN_LINES = 5.0  # on something that is no terminal
SECONDS_OF_SILENCE = 15.0  # there, after which a line says that the component still runs
TICK = 1.0  # seconds
# The runner's messages, whose one argument is the name of a component.
COMPONENT_RUNS = "Component %s is running."
COMPONENT_FINISHED = "Component %s is finished."


class RunView(logging.Handler):
    """Turns the log records of TFX's LocalDagRunner and of stillhouse.modules.progress into progress.

    The runner has no callbacks; its log messages, which this reads by their format strings, are what it tells. What
    tells nothing itself (Beam's jobs, the Evaluator) is shown with its time, beside that of the last run.
    """

    def __init__(self, console: Console, quiet: bool = False):
        """`quiet` draws nothing; the nodes are still noted in `seconds` and `cached`."""
        super().__init__(logging.INFO)
        self._console = console
        self._quiet = quiet
        self._status = None if quiet or not console.is_terminal else console.status("")
        self._node_started = 0.0
        self._line_printed = 0.0
        self._is_cached = False
        self._detail = ""  # what the component told last
        self._stopped = threading.Event()
        self._ticking: threading.Thread | None = None
        self.node: str | None = None
        self.expected: dict[str, float] = {}  # seconds that components took the last time
        self.seconds: dict[str, float] = {}  # that they took this time, without those from the cache
        self.cached: list[str] = []

    def __enter__(self) -> "RunView":
        if self._status:
            self._status.start()
        if not self._quiet:
            self._stopped.clear()
            self._ticking = threading.Thread(target=self._tick, daemon=True)
            self._ticking.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        if self._ticking:
            self._ticking.join()
        if self._status:
            self._status.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Handles one log record; those that tell no progress are passed over."""
        if record.msg == COMPONENT_RUNS:
            self.node, self._node_started, self._is_cached = _component_of(record), time.monotonic(), False
            self._line_printed, self._detail = self._node_started, ""
            self._draw()
        elif record.msg == "A cached execution %d is used.":
            self._is_cached = True
        elif record.msg == COMPONENT_FINISHED:
            self._finished(_component_of(record))
        elif hasattr(record, "epoch_done"):
            payload = record.epoch_done
            figures = "  ".join(f"{name} {value:.4f}" for name, value in payload["metrics"].items())
            self._advance(f"{payload['model']}  epoch {payload['epoch']}/{payload['epochs']}  {figures}")
        elif hasattr(record, "advanced"):
            payload = record.advanced
            self._advance(f"{payload['what']}  {payload['done']:,} of {payload['total']:,}")
        elif hasattr(record, "note"):
            self._print(f"    {record.note}")

    def _finished(self, node: str) -> None:
        took = time.monotonic() - self._node_started
        self.node = None if self.node == node else self.node
        if self._is_cached:
            self.cached.append(node)
        else:
            self.seconds[node] = took
        self._print(f"  {node:<24}{'from cache' if self._is_cached else f'{took:5.1f} s':>12}")

    def _advance(self, text: str) -> None:
        self._detail = text
        self._draw()
        if not self._status and time.monotonic() - self._line_printed > SECONDS_BETWEEN_LINES:
            self._line_printed = time.monotonic()
            self._print(f"  {text}")

    def _tick(self) -> None:
        while not self._stopped.wait(TICK):
            self._draw()
            silent = time.monotonic() - self._line_printed > SECONDS_OF_SILENCE
            if self.node and not self._status and silent:
                self._line_printed = time.monotonic()
                self._print(f"  {self._running()}")

    def _running(self) -> str:
        """Returns the component that runs, and how long it has."""
        text = f"{self.node}  {time.monotonic() - self._node_started:.0f} s"
        if self.node in self.expected:
            text += f" (last run {self.expected[self.node]:.0f} s)"
        return text

    def _draw(self) -> None:
        if self._status and self.node:
            # A status does not come through the console's `render_str`.
            self._status.update(escape(visible("  ".join(filter(None, [self._running(), self._detail])))))

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._console.print(escape(text), highlight=False, soft_wrap=True)


def _component_of(record: logging.LogRecord) -> str:
    assert isinstance(record.args, tuple), "these messages have positional arguments"
    return str(record.args[0])
