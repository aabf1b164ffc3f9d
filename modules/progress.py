"""Progress of long work, as log records that any front end can draw.

Modules do not know who watches. They log to the `stillhouse` logger; the command line draws the records with
rich, a container prints them as plain lines.
"""

import logging
from typing import Any

LOGGER = logging.getLogger("stillhouse")
LINE = "\x1e"  # begins a line of a process's output that is a record of progress, as JSON


def epoch_done(model: str, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
    """Reports that `model` has finished `epoch` of `epochs` (counted from 1) with these training metrics."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    detail = {"model": model, "epoch": epoch, "epochs": epochs, "metrics": metrics}
    LOGGER.info("%s: epoch %d/%d, %s", model, epoch, epochs, figures, extra={"epoch_done": detail})


def advanced(what: str, done: int, total: int) -> None:
    """Reports that `done` of `total` records have been worked on."""
    detail = {"what": what, "done": done, "total": total}
    LOGGER.info("%s: %d of %d", what, done, total, extra={"advanced": detail})


def note(text: str) -> None:
    """Reports something about the work that a person wants to see: a size, a choice that was made."""
    LOGGER.info("%s", text, extra={"note": text})


def told_by(record: logging.LogRecord) -> dict[str, Any] | None:
    """Returns what a record tells, JSON-able, to be repeated in another process; None if it tells no progress."""
    for kind in ("epoch_done", "advanced", "note"):
        if hasattr(record, kind):
            return {kind: getattr(record, kind)}
    return None


def repeat(told: dict[str, Any]) -> None:
    """Logs what `told_by` gave in another process."""
    if "epoch_done" in told:
        epoch_done(**told["epoch_done"])
    elif "advanced" in told:
        advanced(**told["advanced"])
    else:
        note(told["note"])
