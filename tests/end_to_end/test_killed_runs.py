"""A small run is ended at moments chosen at random, and run again: nothing may tell that it was ended before.

STILLHOUSE_MOMENTS=50 .venv/bin/python -m pytest -m soak tests/end_to_end/test_killed_runs.py
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import blobs
import psutil
import pytest
from conftest import Project

MOMENTS = int(os.environ.get("STILLHOUSE_MOMENTS", "3"))
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SECONDS_TO_END = 60

pytestmark = pytest.mark.soak


def small_project(folder) -> Project:
    blobs.write_project(
        folder,
        teachers=[{"epochs": 3}],
        student={"epochs": 3, "checkpoints": {"every_steps": 5, "keep": 2}, "distillation": {"dark_knowledge": []}},
        evaluation={"slices": ["tree"], "gates": {"teacher": {"max_drop": 0.9}, "baseline": None, "pushed": None}},
    )
    return Project(folder)


def results(project: Project) -> dict:
    models = json.loads((project.folder / "runs/blobs/comparison.json").read_text())["models"]
    return {model["name"]: model["metrics"] for model in models}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a run that nobody ended, and its seconds."""
    project = small_project(tmp_path_factory.mktemp("undisturbed"))
    started = time.monotonic()
    done = project.stillhouse("run", "blobs.yaml")
    assert done.returncode == 0, done.stderr
    return results(project), time.monotonic() - started


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_run_that_was_ended_at_any_moment_is_finished_by_the_next(undisturbed, tmp_path, moment):
    expected, seconds = undisturbed
    project = small_project(tmp_path)
    process = project.start("run", "blobs.yaml")
    after = random.uniform(0, seconds)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(SIGNALS[moment % len(SIGNALS)])
        _, errors = process.communicate(timeout=SECONDS_TO_END)
        assert "Traceback" not in errors
    done = project.stillhouse("run", "blobs.yaml")
    circumstances = (
        f"ended by {SIGNALS[moment % len(SIGNALS)].name} after {after:.1f} of {seconds:.1f} s\n{done.stderr}"
    )
    assert done.returncode == 0, circumstances
    finished_metrics = results(project)
    assert finished_metrics.keys() == expected.keys()
    for name, metrics in expected.items():
        assert finished_metrics[name] == pytest.approx(metrics, abs=1e-3), circumstances
    assert len([path for path in (tmp_path / "serving").iterdir() if path.name.isdigit()]) == 1, circumstances
    assert not [path for path in tmp_path.rglob("*") if ".unfinished" in path.name], circumstances
    with closing(sqlite3.connect(tmp_path / "runs/blobs/metadata.sqlite")) as store:
        assert store.execute("PRAGMA quick_check").fetchall() == [("ok",)], circumstances
    leftover_pids = [
        other.pid
        for other in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(other.info["cmdline"] or [])
    ]
    assert not leftover_pids, circumstances
