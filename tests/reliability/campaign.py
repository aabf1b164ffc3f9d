"""What the campaign's tests share: a small pipeline, its undisturbed results, and what has to hold after a disturbance.

The judges read files, SQLite and /proc themselves, and ask nothing of the code that they judge.
"""

import functools
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import blobs
import filelock
import forking
import psutil
import pytest
from user_project import Project

HERE = Path(__file__).parent
SECONDS = 600  # for a run
SECONDS_TO_END = 30  # for what a killed run has started, such as the serving check's process
TOLERANCE = 1e-3  # of metrics: TFX's order of the examples, and so the sums, are not the same to the last bit
LIVE = 2  # ml_metadata's Artifact.State
COMPLETE, CACHED = 3, 5  # and Execution.State
NODES = (
    "ExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "Teacher-1",
    "SoftTargets",
    "Student",
    "Evaluator",
    "Predictions",
    "Blessing",
    "ServingCheck",
    "Pusher",
    "Report",
)


def small_project(folder: Path, **changes) -> Project:
    """Writes a project with one teacher, of three epochs, and gates that it passes; TMPDIR is its folder `tmp`."""
    blobs.write_project(
        folder,
        **{
            "teachers": [{"epochs": 3}],
            "student": {
                "epochs": 3,
                "checkpoints": {"every_steps": 5, "keep": 2},
                "distillation": {"dark_knowledge": []},
            },
            "evaluation": {
                "slices": ["tree"],
                "gates": {
                    "teacher": {"max_drop": 0.9, "max_drop_per_slice": None},
                    "baseline": None,
                    "pushed": None,
                },
            },
            "ingestion": {"cache": "disk"},
        }
        | changes,
    )
    (folder / "tmp").mkdir()
    return Project(folder, environment=dict(os.environ) | {"TMPDIR": str(folder / "tmp")})


def disturbed(project: Project, point: str, action: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs `stillhouse run blobs.yaml` with a disturbance (disturbed.py) to its end."""
    more = {"DISTURBED_POINT": point, "DISTURBED_ACTION": action, "PYTHONPATH": str(HERE)}
    return subprocess.run(
        forking.command("disturbed", "run", "blobs.yaml", *arguments),
        cwd=project.folder,
        env=project.environment | more,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=SECONDS,
    )


@dataclass(frozen=True)
class Undisturbed:
    """What a run gives that nobody disturbed."""

    metrics: dict[str, dict[str, float]]  # by model
    seconds: dict[str, float]  # by node, in the order in which they run


def metrics_of(project: Project) -> dict[str, dict[str, float]]:
    """Returns {model: metrics} of the last finished run."""
    models = json.loads((project.folder / "runs/blobs/comparison.json").read_text())["models"]
    return {model["name"]: model["metrics"] for model in models}


@functools.cache
def undisturbed() -> Undisturbed:
    """Returns the results of a run of the small project; runs it once in a session."""
    folder = Path(forking.RESOURCES.enter_context(tempfile.TemporaryDirectory()))
    project = small_project(folder)
    done = project.stillhouse("run", "blobs.yaml")
    assert done.returncode == 0, done.stderr
    assert_nothing_left(project)
    seconds = json.loads((folder / "runs/blobs/.durations.json").read_text())
    assert sorted(seconds) == sorted(NODES)
    return Undisturbed(metrics_of(project), seconds)


def versions(project: Project) -> list[str]:
    """Returns the names of what is in the push folder."""
    folder = project.folder / "serving"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def assert_metadata_is_sound(project: Project, artifacts: bool = True) -> None:
    """Checks the store as the next run finds it: on a copy, as SQLite repairs what it opens.

    Args:
      project: whose store it is.
      artifacts: whether every live artifact has to be on the disk.
    """
    store = project.folder / "runs/blobs/metadata.sqlite"
    if not store.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in store.parent.glob("metadata.sqlite*"):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder, store.name))) as copy:
            assert copy.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master")}
            if not artifacts or "Artifact" not in tables:
                return
            uris = [uri for (uri,) in copy.execute("SELECT uri FROM Artifact WHERE state = ?", [LIVE])]
            assert [uri for uri in uris if not os.path.exists(uri)] == []


def assert_no_process_is_left(project: Project) -> None:
    """Waits until no process has its working directory in the project's folder."""
    deadline = time.monotonic() + SECONDS_TO_END
    while left := [process for process in psutil.process_iter() if _is_in(process, project.folder)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _is_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and folder in (Path(process.cwd()), *Path(process.cwd()).parents)
    except (psutil.Error, OSError):
        return False


def assert_nothing_left(project: Project) -> None:
    """Checks that a finished run has left no process, no lock and no temporary file or folder."""
    assert_no_process_is_left(project)
    with filelock.FileLock(project.folder / "runs/blobs/.lock", timeout=0):
        pass
    left = [path for path in project.folder.rglob("*") if ".unfinished" in path.name or path.name == ".temp"]
    assert left == []
    assert list((project.folder / "tmp").iterdir()) == []
    assert not list((project.folder / "runs/blobs/artifacts/checkpoints").glob("*/*"))


def assert_as_undisturbed(project: Project, done: subprocess.CompletedProcess) -> None:
    """Checks that a run, after any number of disturbed ones, has ended as if there had been none."""
    assert done.returncode == 0, done.stderr
    assert_same_metrics(project)
    (version,) = versions(project)
    comparison = json.loads((project.folder / "runs/blobs/comparison.json").read_text())
    assert comparison["pushed"] == comparison["served"] == str(project.folder / "serving" / version)
    assert_nothing_left(project)
    assert_metadata_is_sound(project)
    with closing(sqlite3.connect(project.folder / "runs/blobs/metadata.sqlite")) as store:
        states = store.execute(
            "SELECT e.last_known_state FROM Execution e JOIN Association a ON a.execution_id = e.id "
            "WHERE a.context_id = (SELECT max(c.id) FROM Context c JOIN Type t ON c.type_id = t.id "
            "WHERE t.name = 'pipeline_run')"
        ).fetchall()
        assert len(states) == len(NODES)
        assert {state for (state,) in states} <= {COMPLETE, CACHED}


def assert_same_metrics(project: Project) -> None:
    metrics, expected = metrics_of(project), undisturbed().metrics
    assert metrics.keys() == expected.keys()
    for name, values in expected.items():
        assert metrics[name] == pytest.approx(values, abs=TOLERANCE), name
