"""Control characters of data, names and paths are shown by whatever prints, never passed on."""

import io
import json
import logging
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stillhouse.modules import progress
from stillhouse.modules.visible import CONTROL, visible, visible_json
from stillhouse.pipelines.cli.app import app
from stillhouse.pipelines.cli.comparison_table import print_comparison
from stillhouse.pipelines.cli.console import Console
from stillhouse.pipelines.cli.dark_knowledge_table import print_dark_knowledge
from stillhouse.pipelines.local.run_view import RunView

NASTY = "a\x1b[2Jb\0\x07\x9b\u202ec\u2066\ud800"
SHOWN = r"a\x1b[2Jb\x00\x07\x9b\u202ec\u2066\ud800"


def test_control_characters_are_shown_and_letters_stay():
    assert visible(NASTY) == SHOWN
    kept = "two\n\tlines, ∆ 日本語 👩‍💻 é \\x1b"
    assert visible(kept) == kept
    assert visible(visible(NASTY)) == SHOWN


def test_json_means_the_same_as_before():
    text = json.dumps({NASTY: [NASTY]}, ensure_ascii=False)
    assert json.loads(visible_json(text)) == {NASTY: [NASTY]}
    assert not CONTROL.search(visible_json(text))


def printed(show, terminal=False):
    console = Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"), width=300, force_terminal=terminal)
    show(console)
    console.file.flush()
    return console.file.buffer.getvalue().decode()


def comparison():
    model = {"name": NASTY, "role": "student", "metrics": {NASTY: 0.5}, "parameters": 1, "bytes": 1, "latency_ms": 1.0}
    gate = {"name": "teacher", "passed": False, "reason": f"slice tree={NASTY}"}
    return {"pipeline": NASTY, "eval_examples": 3, "models": [model], "gates": [gate], "pushed": f"serving/{NASTY}"}


def dark_knowledge():
    entropy = {"mean": 1.0, "p50": 1.0, "p95": 1.0, "largest_possible": 1.0}
    at = {"temperature": 1.0, "entropy": entropy, "mean_soft_targets": [[0.5, 0.5], [0.5, 0.5]]}
    telling = [{"example": 0, "class": NASTY, "probabilities": {NASTY: 0.5}}]
    return {"classes": [NASTY, "b"], "temperatures": [at], "examples": 1, "telling": telling}


@pytest.mark.parametrize(
    ("show", "count"),
    [
        (lambda console: print_comparison(comparison(), console), 5),
        (lambda console: print_dark_knowledge(dark_knowledge(), console), 6),
        (lambda console: console.print(f"report: {NASTY}", markup=False), 1),
    ],
)
def test_tables_and_messages_show_them(show, count):
    text = printed(show)
    assert not CONTROL.search(text)
    assert text.count(SHOWN) >= count


def test_json_output_is_valid_and_says_the_same(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(comparison()))
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])
    assert json.loads(done.stdout) == comparison()
    assert done.stdout.isascii()
    assert not CONTROL.search(done.stdout)


def test_progress_shows_them(caplog):
    caplog.set_level(logging.INFO, progress.LOGGER.name)

    def show(console):
        view = RunView(console)
        progress.LOGGER.addHandler(view)
        try:
            with view:
                view.node = "Trainer"
                progress.note(NASTY)
                progress.epoch_done(NASTY, 1, 2, {NASTY: 0.5})
                progress.advanced(NASTY, 1, 2)
                view._draw()
        finally:
            progress.LOGGER.removeHandler(view)

    assert f"    {SHOWN}\n" in printed(show)
    on_terminal = printed(show, terminal=True)
    assert SHOWN in on_terminal
    assert NASTY[:4] not in on_terminal  # what rich itself writes has other ESC sequences


def test_what_containers_log_shows_them(caplog):
    with caplog.at_level(logging.INFO, "stillhouse"):
        progress.note(NASTY)
        progress.epoch_done(NASTY, 1, 2, {NASTY: 0.5})
        progress.advanced(NASTY, 1, 2)
    assert [CONTROL.search(message) for message in caplog.messages] == [None] * 3


def test_a_mistake_in_a_path_that_is_no_text_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "stillhouse", "run", b"no\x1b[31m\xff.yaml"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 2
    assert done.stderr.decode() == "error: no\\x1b[31m\\udcff.yaml: cannot be read: No such file or directory\n"
