"""What a run shows while it goes on, from the log records of TFX's runner and of stillhouse.modules.progress."""

import io
import logging
import time

import pytest
from rich.console import Console

from stillhouse.modules import progress
from stillhouse.pipelines.local import run_view
from stillhouse.pipelines.local.run_view import RunView

TFX = logging.getLogger("absl")


@pytest.fixture
def view(monkeypatch):
    for name in ("TICK", "SECONDS_OF_SILENCE"):
        monkeypatch.setattr(run_view, name, 0.02)
    monkeypatch.setattr(run_view, "SECONDS_BETWEEN_LINES", 0.0)
    made = RunView(Console(file=io.StringIO(), width=200))
    loggers = [TFX, progress.LOGGER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(made)
        logger.setLevel(logging.INFO)
    yield made
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(made)
        logger.setLevel(level)


def told(view):
    return view._console.file.getvalue()


def test_a_component_that_tells_nothing_is_shown_with_its_time_and_that_of_the_last_run(view):
    view.expected = {"Evaluator": 14.2}
    with view:
        TFX.info("Component %s is running.", "Evaluator")
        until = time.monotonic() + 5
        while "Evaluator" not in told(view) and time.monotonic() < until:
            time.sleep(0.01)
        TFX.info("Component %s is finished.", "Evaluator")
        lines = told(view).splitlines()
        time.sleep(0.1)
        assert told(view).splitlines() == lines  # nothing runs, nothing is told
    assert lines[0] == "  Evaluator  0 s (last run 14 s)"
    assert lines[-1].split() == ["Evaluator", "0.0", "s"] or lines[-1].split()[-1] == "s"
    assert list(view.seconds) == ["Evaluator"]


def test_epochs_records_and_notes_are_told_as_lines(view):
    with view:
        TFX.info("Component %s is running.", "SoftTargets")
        progress.epoch_done("Student", 2, 5, {"loss": 0.25})
        progress.advanced("examples.gz", 1024, 16384)
        progress.note("a size")
    text = told(view)
    assert "  Student  epoch 2/5  loss 0.2500\n" in text
    assert "  examples.gz  1,024 of 16,384\n" in text
    assert "    a size\n" in text


def test_what_comes_from_the_cache_is_said_and_has_no_time(view):
    with view:
        TFX.info("Component %s is running.", "Transform")
        TFX.info("A cached execution %d is used.", 7)
        TFX.info("Component %s is finished.", "Transform")
    assert "from cache" in told(view)
    assert (view.cached, view.seconds) == (["Transform"], {})


def test_a_quiet_view_draws_nothing_but_notes_what_ran(view):
    view._quiet = True
    with view:
        TFX.info("Component %s is running.", "Transform")
        TFX.info("Component %s is finished.", "Transform")
    assert told(view) == ""
    assert list(view.seconds) == ["Transform"]


@pytest.mark.parametrize(
    "report", [("epoch_done", ("m", 1, 2, {"loss": 1.0})), ("advanced", ("f", 3, 9)), ("note", ("x",))]
)
def test_what_another_process_tells_is_told_again(report):
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    keep = Keep()
    progress.LOGGER.addHandler(keep)
    level = progress.LOGGER.level
    progress.LOGGER.setLevel(logging.INFO)
    try:
        getattr(progress, report[0])(*report[1])
        progress.repeat(progress.payload_of(records[0]))
    finally:
        progress.LOGGER.removeHandler(keep)
        progress.LOGGER.setLevel(level)
    assert progress.payload_of(records[0]) == progress.payload_of(records[1]) is not None
