"""The compiled pipeline, started by a schedule and run task by task by their own command lines, as Kubeflow would."""

import json
import os
import re
from pathlib import Path

import blobs
import numpy as np
import object_store
import pytest
import tensorflow as tf
import yaml
from artifacts import Artifacts
from kubeflow_api import serving
from launcher import ROOT, Launcher, TaskError

from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.kubeflow import recurring_runs as schedule
from stillhouse.pipelines.kubeflow.compile import as_yaml, compile_pipeline
from stillhouse.pipelines.kubeflow.connection import Connection, Server
from stillhouse.pipelines.kubeflow.submit import RunOptions, submit, task_names, watch
from stillhouse.pipelines.schedules.timing import parse_timing

IMAGE = "registry.example/stillhouse:1.0"
REPOSITORY = Path(__file__).parents[3]
SECRETS = {"mlpipeline-minio-artifact": {"accesskey": "key", "secretkey": "secret"}}
OF_THE_STUDENT = {"student", "baseline", "evaluator", "predictions", "blessing", "servingcheck"}
NEVER_TAKEN = {"comparedata", "retrain", "lastpushed", "pusher", "report", "rememberdata"}


def compiled(project, push_path, store, **changes):
    raw = yaml.safe_load((project.folder / "blobs.yaml").read_text())
    raw["data"]["path"], raw["push"]["path"] = str(project.folder / raw["data"]["path"]), str(push_path)
    mounts = [{"claim": "data", "mount": str(project.folder)}, {"claim": "push", "mount": str(push_path)}]
    storage = {"endpoint": store.endpoint, "secret": "mlpipeline-minio-artifact"}
    raw["kubeflow"] = {"volumes": mounts, "storage": storage, "retries": {"most": 0}}
    for section, values in changes.items():
        raw[section] = raw.get(section, {}) | values
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project.folder)
        return compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)


def environment(project):
    return {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(project.folder)]), "TF_CPP_MIN_LOG_LEVEL": "3"}


def student(folder: Path) -> list[np.ndarray]:
    return [variable.numpy() for variable in tf.saved_model.load(str(folder)).network.trainable_variables]


def followed(server, run_id, documents):
    """Follows a run to its end, and returns its states: the run's, and those of its tasks."""
    tasks = {}
    state, reason = watch(server, run_id, task_names(documents[0]), tasks.__setitem__, seconds=0.5)
    assert not reason
    return state, tasks


def why_not_taken(launcher, task):
    return re.search(r"no result of an earlier run: (.*)", launcher.logs[task][-1])[1]


def test_a_schedule_pushes_the_student_of_the_local_run_and_what_it_has_made_is_taken_by_later_runs(
    finished, tmp_path, store
):
    serving_folder, launchers = tmp_path / "serving", []
    documents = compiled(finished, serving_folder, store)

    def launch(documents, run_id, parameters, told):
        launchers.append(
            Launcher(
                documents,
                store,
                tmp_path / "cluster",
                run_id,
                parameters,
                environment(finished),
                mlmd=api.mlmd,
                secrets=SECRETS,
                told=told,
                own_processes=() if launchers else ("examplegen",),
            )
        )
        launchers[-1].run()

    with serving(tmp_path / "state.json", launch) as api:
        server = Server(Connection(api.address))
        wanted = schedule.ScheduleSpec(
            name="nightly",
            timing=parse_timing("0 2 * * *", None),
            text=as_yaml(documents),
            pipeline="blobs",
            experiment="trials",
            parameters={"only_if_changed": True},
            options=RunOptions(ROOT),
        )
        schedule.create(server, wanted)
        state, tasks = followed(server, api.fire("nightly")["run_id"], documents)
        assert (state, set(tasks.values())) == ("SUCCEEDED", {"SUCCEEDED"}), api.runs
        assert set(tasks) == set(task_names(documents[0]))
        (pushed,) = (path.name for path in serving_folder.iterdir() if path.name.isdigit())
        assert not launchers[0].taken()
        assert why_not_taken(launchers[0], "student") == "this task has never ended here"

        state, tasks = followed(server, api.fire("nightly")["run_id"], documents)
        assert (state, tasks) == (
            "SUCCEEDED",
            {"examplegen": "SUCCEEDED", "comparedata": "SUCCEEDED", "retrain": "SKIPPED"},
        )
        assert (
            "unchanged: data, pipeline and parameters are those of the last run" in launchers[1].logs["comparedata"][0]
        )

        # On the backend without MLMD, another student: it needs no other teachers.
        api.mlmd = False
        run = submit(server, "blobs", as_yaml(documents), "trials", {"student_epochs": 3}, RunOptions(ROOT))
        state, tasks = followed(server, run.run_id, documents)
        assert (state, set(tasks.values())) == ("SUCCEEDED", {"SUCCEEDED"}), api.runs
        assert set(tasks) - launchers[2].taken() == NEVER_TAKEN | OF_THE_STUDENT
        assert why_not_taken(launchers[2], "student") == "changed since the last: parameters (custom_config)"

    launcher = launchers[0]
    local = Artifacts(finished.folder / "runs" / "blobs").uri("Student", "model") / "Format-Serving"
    for ours, expected in zip(student(serving_folder / pushed), student(local), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    examples = launcher.artifacts["examplegen", "examples"]
    assert examples.uri.startswith("minio://")
    assert sorted(json.loads(examples.metadata["split_names"])) == ["eval", "train"]
    assert "total_bytes" in examples.metadata["input_fingerprint"]  # of the data, by which changes are seen
    assert launcher.artifacts["blessing", "blessing"].metadata["blessed"] == 1
    comparison = json.loads(store.read(key(launcher, "report", "comparison") + "/comparison.json"))
    page = launcher.artifacts["report", "page"].uri
    assert page.endswith("/report.html")  # the file, which Kubeflow's pages show, not its folder
    assert "Pushed" in store.read(key(launcher, "report", "page")).decode()
    assert comparison["pushed"] == str(serving_folder / pushed)
    expected = json.loads((finished.folder / "runs" / "blobs" / "comparison.json").read_text())
    assert [model["name"] for model in comparison["models"]] == [model["name"] for model in expected["models"]]
    assert "taken from an earlier run: <code>minio://" in store.read(key(launchers[2], "report", "page")).decode()
    # What nobody can have left: a declared output without a folder.
    assert not launcher.warnings


def key(launcher, task, output):
    return launcher.artifacts[task, output].uri.removeprefix(f"minio://{object_store.BUCKET}/")


def test_a_window_of_spans_is_read_up_to_the_span_of_the_run(project, tmp_path, store):
    for number in (1, 2, 3, 4):
        blobs.write_csv(project.folder / "spans" / f"span-{number}" / "blobs.csv", blobs.rows(10 * number, seed=number))
    spans = {"path": str(project.folder / "spans" / "span-{SPAN}"), "spans": 2}
    documents = compiled(project, tmp_path / "serving", store, data=spans)
    launcher = Launcher(
        documents,
        store,
        tmp_path / "cluster",
        parameters={"span": 3},
        environment=environment(project),
        secrets=SECRETS,
    )
    launcher.run_one("examplegen")
    examples = launcher.artifacts["examplegen", "examples"]
    assert examples.metadata["custom:span"] == 3
    assert examples.metadata["input_fingerprint"].startswith("2 spans up to 3: ")
    files = [name for name in store.keys(key(launcher, "examplegen", "examples")) if name.endswith(".gz")]
    for number, name in enumerate(files):
        store.download(name, tmp_path / f"{number}.gz")
    read = tf.data.TFRecordDataset([str(tmp_path / f"{number}.gz") for number in range(len(files))], "GZIP")
    assert len(list(read)) == 20 + 30


def test_a_task_that_fails_reports_nothing_and_says_why_last(finished, tmp_path, store):
    documents = compiled(finished, tmp_path / "serving", store)
    documents[0]["root"]["dag"]["tasks"]["examplegen"]["retryPolicy"] = {"maxRetryCount": 1}
    parameters, told = {"data_path": str(finished.folder / "nothing-there")}, []
    launcher = Launcher(
        documents,
        store,
        tmp_path / "cluster",
        parameters=parameters,
        environment=environment(finished),
        secrets=SECRETS,
        told=lambda *node: told.append(node),
    )
    with pytest.raises(TaskError) as failed:
        launcher.run_one("examplegen")
    reason = failed.value.output
    assert reason.startswith("examplegen: ")
    assert "nothing-there/* does not match any files" in reason
    assert [log.strip().splitlines()[-1] for log in launcher.logs["examplegen"]] == [f"error: {reason}"] * 2
    assert told[-1] == ("examplegen", "FAILED", reason)
    # Of a task that fails the log is left, of each attempt, and nothing else.
    names = [name.rpartition("/")[2] for name in store.keys("v2/artifacts/blobs/")]
    assert sorted(names) == ["executor-logs-0", "executor-logs-1"]
