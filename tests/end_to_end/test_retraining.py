"""Retraining on a schedule on this machine: real schedulers and runs, some of which are killed."""

import json
import os
import signal
import time
from datetime import datetime, timedelta, timezone

import blobs
import psutil
import pytest
import tensorflow as tf
import yaml

SECONDS = 300


def write_span(folder, number):
    """Writes a span with fixed counts of the classes, so that their vocabulary, by frequency, stays as it is."""
    rows = blobs.rows(600, seed=number)
    taken = [row for name, count in zip(blobs.CLASSES, (120, 100, 80), strict=True) for row in _of(rows, name)[:count]]
    blobs.write_csv(folder / "data" / f"span-{number}" / "blobs.csv", taken)


def _of(rows, name):
    return [row for row in rows if row[-1] == name]


@pytest.fixture
def spans(project):
    """A project with two spans, and an hourly schedule that has missed three runs."""
    raw = blobs.settings()
    raw["data"] |= {"path": "data/span-{SPAN}", "spans": 2}
    raw["student"]["warm_start"] = raw["teachers"][0]["warm_start"] = True
    (project.folder / "blobs.yaml").write_text(yaml.safe_dump(raw))
    for number in (1, 2):
        write_span(project.folder, number)
    made = project.stillhouse("schedule", "create", "blobs.yaml", "--on", "local", "--every", "1h")
    assert made.returncode == 0, made.stderr
    file = project.folder / "runs" / "schedules" / "blobs.json"
    created = datetime.now(timezone.utc) - timedelta(hours=3.5)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"created": created.isoformat()}))
    return project


def count(project, node, split):
    """Returns how many examples of a split a node has written in its last run."""
    runs = (project.folder / "runs" / "blobs" / "artifacts" / node / "examples").iterdir()
    files = (max(runs, key=lambda path: int(path.name)) / f"Split-{split}").iterdir()
    return sum(1 for _ in tf.data.TFRecordDataset([str(path) for path in files], compression_type="GZIP"))


def history(project):
    file = project.folder / "runs" / "schedules" / "blobs.history.json"
    return json.loads(file.read_text()) if file.exists() else []


def wait_until(what):
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def log(project):
    file = project.folder / "runs" / "schedules" / "blobs.log"
    return file.read_text() if file.exists() else ""


def run_processes(project):
    """Returns the processes that run the schedule; the scheduler is none of them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(project.folder) in line and ("run-now" in line or " run " in line):
            found.append(process)
    return found


@pytest.mark.soak
def test_a_schedule_retrains_on_new_spans_whatever_is_killed(spans):
    first, second = None, None
    try:
        first = spans.start("scheduler")
        wait_until(lambda: "StatisticsGen" in log(spans))
        first.kill()  # -9: its run goes on
        first.wait()
        second = spans.start("scheduler")
        time.sleep(3)
        assert len(history(spans)) == 1  # the second scheduler sees that it goes on, and starts no other
        for process in run_processes(spans):
            process.send_signal(signal.SIGKILL)
        ended = wait_until(lambda: [run for run in history(spans) if run["outcome"] == "pushed"])
        second.send_signal(signal.SIGTERM)
        assert second.wait(SECONDS) == 0
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        for process in run_processes(spans):
            process.kill()
    killed, pushed = history(spans)
    assert (killed["outcome"], pushed["attempt"]) == ("interrupted", 2)
    assert killed["due"] == pushed["due"] == ended[0]["due"]
    assert pushed["missed"] == 2
    assert "StatisticsGen             from cache" in log(spans)

    write_span(spans.folder, 3)
    done = spans.stillhouse("schedule", "run-now", "blobs", "--on", "local")
    assert done.returncode == 0, done.stderr
    assert "Student: starting from the last pushed version" in " ".join(done.stderr.split())
    comparison = json.loads((spans.folder / "runs" / "blobs" / "comparison.json").read_text())
    models = {model["name"]: model for model in comparison["models"]}
    assert {name: model["warm_started"] for name, model in models.items()} == {
        "Teacher-1": True,
        "Baseline": False,
        "Student": True,
        "Pushed": False,
    }
    # Trained on two spans of 300 examples, and compared on the newest, with what was pushed too.
    newest = {split: count(spans, "NewestSpan", split) for split in ("train", "eval")}
    assert sum(newest.values()) == 300
    assert comparison["eval_examples"] == newest["eval"]
    assert count(spans, "ExampleGen", "train") + count(spans, "ExampleGen", "eval") == 600
    examples = sum(values["example_count"] for values in models["Pushed"]["slices"].values())
    assert examples == comparison["eval_examples"]
    assert any(gate["name"] == "pushed" and "against" in gate["reason"] for gate in comparison["gates"])
    versions = [name for name in os.listdir(spans.folder / "serving") if name.isdigit()]
    assert len(versions) == 2

    again = spans.stillhouse("schedule", "run-now", "blobs", "--on", "local")
    assert again.returncode == 0
    assert f"unchanged since the run {comparison['run_id']}; nothing to do" in again.stderr
    assert history(spans)[-1]["outcome"] == "unchanged"
