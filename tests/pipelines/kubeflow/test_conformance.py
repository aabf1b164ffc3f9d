"""The compiled pipeline, started by a schedule and run task by task by their own command lines, as Kubeflow would."""

import json
import os
from pathlib import Path

import blobs
import numpy as np
import pytest
import tensorflow as tf
import yaml
from artifacts import Artifacts
from kubeflow_api import serving
from launcher import Launcher, TaskError

from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.kubeflow import recurring_runs as schedule
from stillhouse.pipelines.kubeflow.compile import as_yaml, compile_pipeline
from stillhouse.pipelines.kubeflow.connection import Connection, Server
from stillhouse.pipelines.kubeflow.submit import watch
from stillhouse.pipelines.schedules.timing import parse_timing

IMAGE = "registry.example/stillhouse:1.0"
ROOT = "minio://mlpipeline/v2/artifacts"
REPOSITORY = Path(__file__).parents[3]


def compiled(project, push_path, **data):
    raw = yaml.safe_load((project.folder / "blobs.yaml").read_text())
    raw["data"]["path"], raw["push"]["path"] = str(project.folder / raw["data"]["path"]), str(push_path)
    raw["data"] |= data
    mounts = [{"claim": "data", "mount": str(project.folder)}, {"claim": "push", "mount": str(push_path)}]
    raw["kubeflow"] = {"volumes": mounts}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project.folder)
        return compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)


def environment(project):
    return {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(project.folder)]), "TF_CPP_MIN_LOG_LEVEL": "3"}


def student(folder: Path) -> list[np.ndarray]:
    return [variable.numpy() for variable in tf.saved_model.load(str(folder)).network.trainable_variables]


def fired(api, server):
    """Starts the schedule's run, follows it to its end, and returns its states: the run's, and those of its tasks."""
    run = api.fire("nightly")
    tasks = {}
    state, reason = watch(server, run["run_id"], tasks.__setitem__, seconds=0.5)
    assert not reason
    return state, tasks


def test_a_schedule_pushes_the_student_of_the_local_run_and_then_ends_early(finished, tmp_path):
    launchers = []

    def launch(documents, run_id, parameters, told):
        launchers.append(
            Launcher(documents, tmp_path / "cluster", run_id, parameters, environment(finished), told=told)
        )
        if len(launchers) > 1:
            launchers[-1].processes = ()
        launchers[-1].run()

    with serving(tmp_path / "state.json", launch) as api:
        server = Server(Connection(api.address))
        wanted = schedule.ScheduleSpec(
            name="nightly",
            timing=parse_timing("0 2 * * *", None),
            text=as_yaml(compiled(finished, tmp_path / "serving")),
            pipeline="blobs",
            experiment="trials",
            parameters={"only_if_changed": True},
            root=ROOT,
        )
        schedule.create(server, wanted)
        state, tasks = fired(api, server)
        assert (state, set(tasks.values())) == ("SUCCEEDED", {"SUCCEEDED"})
        (pushed,) = (path for path in (tmp_path / "serving").iterdir() if path.name.isdigit())

        state, tasks = fired(api, server)
        assert (state, tasks) == (
            "SUCCEEDED",
            {"examplegen": "SUCCEEDED", "comparedata": "SUCCEEDED", "retrain": "SKIPPED"},
        )
        told = (tmp_path / "cluster" / "tasks" / f"{launchers[1].run_id}-comparedata" / "output").read_text()
        assert "unchanged: data, pipeline and parameters are those of the last run" in told
        assert [path.name for path in (tmp_path / "serving").iterdir() if path.name.isdigit()] == [pushed.name]

    launcher = launchers[0]
    local = Artifacts(finished.folder / "runs" / "blobs").uri("Student", "model") / "Format-Serving"
    for ours, expected in zip(student(pushed), student(local), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    examples = launcher.artifacts["examplegen", "examples"]
    assert examples["uri"].startswith("minio://")
    assert sorted(json.loads(examples["metadata"]["split_names"])) == ["eval", "train"]
    assert "total_bytes" in examples["metadata"]["input_fingerprint"]  # of the data, by which changes are seen
    assert launcher.artifacts["blessing", "blessing"]["metadata"]["blessed"] == 1
    report = launcher.store / launcher.artifacts["report", "comparison"]["uri"].removeprefix("minio://")
    comparison = json.loads((report / "comparison.json").read_text())
    page = launcher.artifacts["report", "page"]["uri"]
    assert page.endswith("/report.html")  # the file, which Kubeflow's pages show, not its folder
    assert "Pushed" in (launcher.store / page.removeprefix("minio://")).read_text()
    assert comparison["pushed"] == str(pushed)
    expected = json.loads((finished.folder / "runs" / "blobs" / "comparison.json").read_text())
    assert [model["name"] for model in comparison["models"]] == [model["name"] for model in expected["models"]]


def test_a_window_of_spans_is_read_up_to_the_span_of_the_run(project, tmp_path):
    for number in (1, 2, 3, 4):
        blobs.write_csv(project.folder / "spans" / f"span-{number}" / "blobs.csv", blobs.rows(10 * number, seed=number))
    documents = compiled(project, tmp_path / "serving", path=str(project.folder / "spans" / "span-{SPAN}"), spans=2)
    launcher = Launcher(
        documents, tmp_path / "cluster", parameters={"span": 3}, environment=environment(project), processes=()
    )
    launcher.run_one("examplegen")
    examples = launcher.artifacts["examplegen", "examples"]
    assert examples["metadata"]["custom:span"] == 3
    assert examples["metadata"]["input_fingerprint"].startswith("2 spans up to 3: ")
    files = (launcher.store / examples["uri"].removeprefix("minio://")).rglob("*.gz")
    read = tf.data.TFRecordDataset([str(path) for path in files], compression_type="GZIP")
    assert len(list(read)) == 20 + 30


def test_a_task_that_fails_reports_nothing_and_says_why_last(finished, tmp_path):
    documents = compiled(finished, tmp_path / "serving")
    parameters = {"data_path": str(finished.folder / "nothing-there")}
    launcher = Launcher(
        documents, tmp_path / "cluster", parameters=parameters, environment=environment(finished), processes=()
    )
    with pytest.raises(TaskError) as failed:
        launcher.run_one("examplegen")
    assert "nothing-there/* does not match any files" in failed.value.output.strip().splitlines()[-1]
