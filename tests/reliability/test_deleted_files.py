"""What a run has left is deleted before the next: the same metrics, or one sentence; never a push of something else."""

import json
import os
import shutil
from pathlib import Path

import pytest
from campaign import (
    NODES,
    assert_metadata_is_sound,
    assert_no_process_is_left,
    assert_same_metrics,
    small_project,
    versions,
)

from stillhouse.modules.pushes.versions import model_fingerprint

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

# Below the run's root, except for the push folder. `A + B` are deleted together: A is then made anew without B's files.
# `NODE/**` are the files of a node's output, whose folders stay.
DELETED = [
    *(f"artifacts/{node}" for node in reversed(NODES)),
    *(f"artifacts/{node}/**" for node in ("Student", "Report", "Pusher")),
    "artifacts/Transform + artifacts/ExampleGen/**",
    "artifacts/SchemaGen + artifacts/StatisticsGen/**",
    "artifacts/Student + artifacts/SoftTargets/**",
    "artifacts/SoftTargets + artifacts/Teacher-1/**",
    "artifacts/Evaluator + artifacts/Student/**",
    "artifacts/Report + artifacts/Predictions/**",
    "artifacts/input_cache",
    "artifacts",
    "metadata.sqlite",
    "metadata.sqlite + artifacts",
    "comparison.json + report.html + settings.yaml + .durations.json",
    "../../serving",
    "../../serving/**",
    ".",
]


@pytest.fixture(scope="module")
def finished_small(tmp_path_factory):
    """A project that has run once, and a copy of it; artifacts have absolute paths, so a case works in the first."""
    folder = tmp_path_factory.mktemp("deleted") / "project"
    folder.mkdir()
    project = small_project(folder)
    done = project.stillhouse("run", "blobs.yaml")
    assert done.returncode == 0, done.stderr
    return project, shutil.copytree(folder, folder.with_name("backup"))


def delete(root: Path, pattern: str) -> int:
    """Deletes what `pattern` names below `root`; returns the number of files that are gone."""
    path = Path(os.path.normpath(root / pattern.removesuffix("/**")))
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    if pattern.endswith("/**"):
        for file in files:
            file.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return len(files)


@pytest.mark.parametrize("deleted", DELETED)
def test_a_run_after_a_deletion_gives_the_same_or_one_sentence(finished_small, deleted, record_property):
    record_property("fault", "artifacts and caches deleted between runs")
    project, backup = finished_small
    shutil.rmtree(project.folder)
    shutil.copytree(backup, project.folder)
    for pattern in deleted.split(" + "):
        assert delete(project.folder / "runs/blobs", pattern) or deleted == "artifacts/input_cache"
    done = project.stillhouse("run", "blobs.yaml")
    assert "Traceback" not in done.stderr, done.stderr
    assert_no_process_is_left(project)
    if done.returncode == 0:
        assert_same_metrics(project)
        comparison = json.loads((project.folder / "runs/blobs/comparison.json").read_text())
        newest = max(versions(project), key=int)
        assert comparison["pushed"] == comparison["served"] == str(project.folder / "serving" / newest)
        assert_metadata_is_sound(project, artifacts=False)
    else:
        assert done.returncode in (1, 2), done.stderr
        (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(sentence) < 1_000
        assert "runs/blobs/" in sentence or "/serving" in sentence
    for version in versions(project):  # a push is whole
        files = [path for path in (project.folder / "serving" / version).rglob("*") if path.is_file()]
        if files:
            record = json.loads((project.folder / "serving" / version / "assets.extra/push.json").read_text())
            assert record["fingerprint"] == model_fingerprint(str(project.folder / "serving" / version))
