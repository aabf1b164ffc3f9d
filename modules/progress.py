"""Reports progress of long work as log records that any front end can draw.

Modules are independent of the front end. They log to the `stillhouse` logger; the command line draws the records with
rich, a container prints them as plain lines.
"""

import logging
from typing import Any

from stillhouse.modules.visible import visible

LOGGER = logging.getLogger("stillhouse")
LINE = "\x1e"  # first character of an output line with a record of progress as JSON


def epoch_done(model: str, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
    """Reports that `model` has finished `epoch` of `epochs` (counted from 1) with these training metrics."""
    model, metrics = visible(model), {visible(name): value for name, value in metrics.items()}
    values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    detail = {"model": model, "epoch": epoch, "epochs": epochs, "metrics": metrics}
    LOGGER.info("%s: epoch %d/%d, %s", model, epoch, epochs, values, extra={"epoch_done": detail})


def advanced(what: str, done: int, total: int) -> None:
    """Reports that `done` of `total` records have been processed."""
    what = visible(what)
    detail = {"what": what, "done": done, "total": total}
    LOGGER.info("%s: %d of %d", what, done, total, extra={"advanced": detail})


def note(text: str) -> None:
    """Reports a line about the work for the user, such as a size or a decision."""
    text = visible(text)
    LOGGER.info("%s", text, extra={"note": text})


def payload_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """Returns a record's payload, JSON-able, for `repeat` in another process; None if the record is not progress."""
    for kind in ("epoch_done", "advanced", "note"):
        if hasattr(record, kind):
            return {kind: getattr(record, kind)}
    return None


def repeat(payload: dict[str, Any]) -> None:
    """Logs a payload that `payload_of` returned in another process."""
    if "epoch_done" in payload:
        epoch_done(**payload["epoch_done"])
    elif "advanced" in payload:
        advanced(**payload["advanced"])
    else:
        note(payload["note"])
