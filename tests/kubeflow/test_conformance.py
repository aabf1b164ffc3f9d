"""The compiled pipeline, run task by task by their own command lines, as Kubeflow's launcher would."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from artifacts import Artifacts
from launcher import Launcher, TaskError

from pipelines.kubeflow.compile import compile_pipeline
from pipelines.settings import parse_settings

IMAGE = "registry.example/stillhouse:1.0"
REPOSITORY = Path(__file__).parents[2]


def compiled(finished, push_path):
    raw = yaml.safe_load((finished.folder / "blobs.yaml").read_text())
    raw["data"]["path"], raw["push"]["path"] = str(finished.folder / raw["data"]["path"]), str(push_path)
    mounts = [{"claim": "data", "mount": str(finished.folder)}, {"claim": "push", "mount": str(push_path)}]
    raw["kubeflow"] = {"volumes": mounts}
    return compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)


@pytest.fixture
def launcher(finished, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(finished.folder)
    environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(finished.folder)]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return Launcher(compiled(finished, tmp_path / "serving"), tmp_path / "cluster", environment=environment)


def student(folder: Path) -> list[np.ndarray]:
    return [variable.numpy() for variable in tf.saved_model.load(str(folder)).network.trainable_variables]


def test_a_run_by_the_launcher_pushes_the_student_of_the_local_run(finished, launcher, tmp_path):
    launcher.run()
    (pushed,) = (path for path in (tmp_path / "serving").iterdir() if path.name.isdigit())
    local = Artifacts(finished.folder / "runs" / "blobs").uri("Student", "model") / "Format-Serving"
    for ours, expected in zip(student(pushed), student(local), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)

    examples = launcher.artifacts["examplegen", "examples"]
    assert examples["uri"].startswith("minio://")
    assert sorted(json.loads(examples["metadata"]["split_names"])) == ["eval", "train"]
    assert launcher.artifacts["blessing", "blessing"]["metadata"]["blessed"] == 1
    report = launcher.store / launcher.artifacts["report", "comparison"]["uri"].removeprefix("minio://")
    comparison = json.loads((report / "comparison.json").read_text())
    assert comparison["pushed"] == str(pushed)
    expected = json.loads((finished.folder / "runs" / "blobs" / "comparison.json").read_text())
    assert [model["name"] for model in comparison["models"]] == [model["name"] for model in expected["models"]]


def test_a_task_that_fails_reports_nothing_and_says_why_last(finished, launcher):
    launcher.parameters["data_path"] = str(finished.folder / "nothing-there")
    with pytest.raises(TaskError) as failed:
        launcher.run_task("examplegen")
    assert "nothing-there/* does not match any files" in failed.value.output.strip().splitlines()[-1]
