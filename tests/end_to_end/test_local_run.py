"""Whole runs of a small task with string labels, from the command line."""

import json
import math
import os
import re
import shutil
import signal
import time

import blobs
import numpy as np
import pytest
import tensorflow as tf
from conftest import Project

from stillhouse.modules.models.serving import read_records, without_feature
from stillhouse.modules.pushes.versions import read_record
from stillhouse.modules.settings import load_settings


def comparison(project, root="runs/blobs"):
    return json.loads((project.folder / root / "comparison.json").read_text())


def nodes(done, how):
    """Names of the nodes that the progress says were executed ("s") or taken "from cache"."""
    lines = [line for line in done.stderr.splitlines() if re.match("  [^ ]", line) and "epoch" not in line]
    return [line.split()[0] for line in lines if line.endswith(how)]


@pytest.fixture
def copy(finished, tmp_path):
    """The finished project, copied with its paths: artifacts in MLMD are absolute, so the copy works in place."""
    backup = tmp_path / "backup"
    shutil.copytree(finished.folder, backup)
    yield finished
    shutil.rmtree(finished.folder)
    backup.rename(finished.folder)


def test_a_run_ends_with_a_pushed_student_and_a_table(finished):
    result = comparison(finished)
    assert result["pipeline"] == "blobs"
    assert result["run_id"]
    roles = [(model["name"], model["role"]) for model in result["models"]]
    assert roles == [
        ("Teacher-1", "teacher"),
        ("Teacher-2", "teacher"),
        ("Ensemble", "ensemble"),
        ("Baseline", "baseline"),
        ("Student", "student"),
    ]
    student = result["models"][-1]
    assert student["parameters"] == 4 * 3 + 3 + 3 * 3 + 3
    assert student["latency_ms"] > 0
    assert student["bytes"] > 0
    pairs = {pair["other"]: pair for pair in result["pairs"] if pair["model"] == "Student"}
    assert set(pairs) == {"Teacher-1", "Teacher-2", "Ensemble", "Baseline"}
    metrics = {model["name"]: model["metrics"]["accuracy"] for model in result["models"]}
    for other, pair in pairs.items():
        assert pair["change"] == pytest.approx(metrics["Student"] - metrics[other], abs=1e-6)
        assert pair["low"] <= pair["change"] <= pair["high"]
    assert 0.5 < result["fidelity"]["agreement"] <= 1
    gained = result["distillation"]
    assert gained["gain"]["change"] == pairs["Baseline"]["change"]
    assert gained["fidelity"]["eval"] == result["fidelity"]["agreement"]
    assert 0 < gained["entropy"] < gained["max_entropy"] == pytest.approx(math.log(3))
    assert 0 < gained["soft_gradient_share"] < 1
    assert 1 <= len(gained["diagnosis"]) <= 3
    assert result["baseline"]["updates"] == result["baseline"]["student_updates"]
    assert {gate["name"]: gate["passed"] for gate in result["gates"]} == dict.fromkeys(
        ("teacher", "baseline", "pushed", "serving"), True
    )
    assert os.path.isdir(result["pushed"])
    assert result["served"] == result["pushed"]
    record = read_record(result["pushed"])
    assert (record["pipeline"], record["run_id"]) == ("blobs", result["run_id"])
    assert record["metrics"] == student["metrics"]
    assert record["gates"] == result["gates"]
    assert "Ensemble" in finished.first_run.stdout
    assert result["pushed"] in finished.first_run.stdout


def test_a_run_leaves_a_page_about_what_its_models_predict(finished):
    root = finished.folder / "runs" / "blobs"
    page, found = (root / "report.html").read_text(), comparison(finished)
    assert "Pushed" in page
    assert found["run_id"] in page
    (details,) = root.glob("artifacts/Report/comparison/*/details.json")
    told = json.loads(details.read_text())
    student = next(model for model in found["models"] if model["role"] == "student")
    matrix = np.array(told["confusion"]["Student"])
    assert matrix.sum() == found["eval_examples"]
    assert np.trace(matrix) / matrix.sum() == pytest.approx(student["metrics"]["accuracy"], abs=1e-6)
    assert sum(one["examples"] for one in told["calibration"]["Student"]["bins"]) == found["eval_examples"]
    assert all(name in page for name in told["classes"])
    assert student["latency_p95_ms"] >= student["latency_ms"]
    assert found["settings"]["student"]["epochs"] == len(told["histories"]["Student"]["loss"])
    assert told["data"]["splits"] == {"train": told["data"]["splits"]["train"], "eval": found["eval_examples"]}
    features = {row["name"]: row for row in told["data"]["features"]}
    assert set(features) == {*blobs.COLUMNS, "tree"}
    assert features["tree"]["kind"] == "string"
    assert features["tree"]["splits"]["train"]["values"].startswith("3 distinct: ")
    assert told["data"]["anomalies"] == []
    assert len(told["dark_knowledge"]["temperatures"]) == 4
    assert load_settings(root / "settings.yaml").model_dump(mode="json", by_alias=True) == found["settings"]


def test_slices_speak_of_class_names(finished):
    student = comparison(finished)["models"][-1]
    assert set(student["slices"]) == {f"tree={name}" for name in blobs.CLASSES}
    counts = [metrics["example_count"] for metrics in student["slices"].values()]
    assert sum(counts) == comparison(finished)["eval_examples"]


def test_the_pushed_model_serves_raw_examples_without_label_and_answers_with_class_names(finished):
    result = comparison(finished)
    model = tf.saved_model.load(result["pushed"])
    (pattern,) = finished.folder.glob("runs/blobs/artifacts/ExampleGen/examples/*/Split-eval")
    records = list(read_records(f"{pattern}/*").as_numpy_iterator())
    truth = [tf.train.Example.FromString(r).features.feature["tree"].bytes_list.value[0].decode() for r in records]
    requests = tf.constant([without_feature(record, "tree") for record in records])
    answer = model.signatures["serving_default"](examples=requests)
    said = [name.decode() for name in answer["label"].numpy()]
    accuracy = np.mean([a == b for a, b in zip(said, truth, strict=True)])
    assert accuracy == pytest.approx(result["models"][-1]["metrics"]["accuracy"], abs=1e-6)
    np.testing.assert_allclose(answer["probabilities"].numpy().sum(axis=1), 1, rtol=1e-5)


def test_the_ensemble_is_the_mean_of_its_teachers(finished):
    def probabilities(node):
        (path,) = finished.folder.glob(f"runs/blobs/artifacts/{node}/model/*/Format-Serving")
        answer = tf.saved_model.load(str(path)).signatures["serving_default"](examples=requests)
        return answer["probabilities"].numpy()

    (pattern,) = finished.folder.glob("runs/blobs/artifacts/ExampleGen/examples/*/Split-eval")
    requests = tf.constant(list(read_records(f"{pattern}/*").as_numpy_iterator()))
    mean = (probabilities("Teacher-1") + probabilities("Teacher-2")) / 2
    np.testing.assert_allclose(probabilities("Ensemble"), mean, atol=1e-6)


def test_report_prints_the_last_run_and_json(finished):
    assert "Ensemble" in finished.stillhouse("report").stdout
    assert json.loads(finished.stillhouse("report", "blobs", "--json").stdout) == comparison(finished)


def test_report_prints_the_dark_knowledge_and_json(finished):
    found = json.loads(finished.stillhouse("report", "--dark-knowledge", "--json").stdout)
    assert sorted(found["classes"]) == sorted(blobs.CLASSES)
    assert [at["temperature"] for at in found["temperatures"]] == [1.0, 2.0, 5.0, 10.0]
    entropies = [at["entropy"]["mean"] for at in found["temperatures"]]
    assert entropies == sorted(entropies)
    assert (finished.folder / "runs/blobs/dark_knowledge/similarity-T2.svg").read_text().startswith("<?xml")
    printed = finished.stillhouse("report", "blobs", "--dark-knowledge").stdout
    assert "T = 10: entropy of the soft targets" in printed
    assert "ash looks like" in printed or "birch looks like" in printed


def test_an_unchanged_pipeline_runs_no_component_again_and_makes_a_damaged_comparison_anew(copy):
    before = comparison(copy)
    os.truncate(copy.folder / "runs/blobs/comparison.json", 100)
    done = copy.stillhouse("run", "blobs.yaml")
    assert done.returncode == 0
    assert nodes(done, " s") == []
    assert len(nodes(done, "from cache")) == 19
    after = comparison(copy)
    assert after.pop("run_id") != before.pop("run_id")
    assert after == before


@pytest.mark.soak
def test_a_changed_student_goes_on_after_a_kill_and_is_not_pushed_when_it_is_refused(copy):
    pushed = comparison(copy)["pushed"]
    changes = (
        "--set", "student.distillation.alpha=0.5", "--set", "student.epochs=400",
        "--set", "student.checkpoints.every_steps=50", "--set", "student.optimizer.learning_rate=1e-9",
        "--set", "evaluation.gates.teacher.max_drop=0", "--set", "evaluation.gates.teacher.max_drop_per_slice=0",
    )  # fmt: skip
    process = copy.start("run", "blobs.yaml", *changes)
    checkpoints = copy.folder / "runs/blobs/artifacts/checkpoints/Student"
    while process.poll() is None and not list(checkpoints.glob("*/chief-0/checkpoint-*.index")):
        time.sleep(0.02)
    process.kill()
    output = process.communicate()[1]
    assert list(checkpoints.glob("*/chief-0/checkpoint-*.index")), output
    assert " Baseline " in output  # epochs and learning rate are the baseline's too

    done = copy.stillhouse("run", "blobs.yaml", *changes)
    assert done.returncode == 3, done.stderr
    assert re.search(r"Student: resuming at step \d+ of 3200", done.stderr)
    assert not list(checkpoints.glob("*"))
    unchanged = {"Teacher-1", "Teacher-2", "Ensemble", "Transform"}
    assert unchanged <= set(nodes(done, "from cache"))
    assert {"Student", "Evaluator", "Pusher", "Report"} <= set(nodes(done, " s"))
    result = comparison(copy)
    assert result["pushed"] is None
    assert [model["role"] for model in result["models"]][-1] == "pushed"
    assert not next(gate for gate in result["gates"] if gate["name"] == "teacher")["passed"]
    assert [str(path) for path in (copy.folder / "serving").iterdir()] == [pushed]
    assert "not pushed: a gate failed" in done.stdout


def test_a_push_that_was_removed_is_pushed_again(copy):
    shutil.rmtree(copy.folder / "serving")
    done = copy.stillhouse("run", "blobs.yaml")
    assert done.returncode == 0
    assert {"Pusher", "Report"} == set(nodes(done, " s"))
    assert os.path.isdir(comparison(copy)["pushed"])


def test_a_student_whose_files_have_changed_since_its_checks_is_not_pushed(copy):
    shutil.rmtree(copy.folder / "serving")
    (weights,) = copy.folder.glob("runs/blobs/artifacts/Student/model/*/Format-Serving/variables/variables.data*")
    os.truncate(weights, weights.stat().st_size // 2)
    done = copy.stillhouse("run", "blobs.yaml")
    assert done.returncode == 1, done.stderr
    student = weights.parents[2]
    assert f"Pusher: {student}/Format-Serving: found a model with fingerprint" in done.stderr
    assert f"nothing was pushed; delete {student} and run again, which trains the model anew" in done.stderr
    assert not list((copy.folder / "serving").iterdir())


def wait_for(process, text):
    """Reads the progress of a running command until `text` comes."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} never came; exit code {process.wait()}")


def test_a_second_run_on_the_same_root_is_refused(project):
    process = project.start("run", "blobs.yaml")
    try:
        wait_for(process, "ExampleGen")
        second = project.stillhouse("run", "blobs.yaml")
    finally:
        process.kill()
        process.communicate()
    assert second.returncode == 1
    assert "another run is using this folder" in second.stderr


def test_anomalies_stop_the_run_with_feature_and_reason(project, finished):
    (schema,) = finished.folder.glob("runs/blobs/artifacts/SchemaGen/schema/*/schema.pbtxt")
    text = schema.read_text()
    assert 'value: "cedar"' in text
    (project.folder / "schema.pbtxt").write_text(text.replace('  value: "cedar"\n', ""))
    done = project.stillhouse("run", "blobs.yaml", "--set", "data.schema=schema.pbtxt")
    assert done.returncode == 2
    assert "ExampleValidator: the data violate the schema" in done.stderr
    assert "feature 'tree'" in done.stderr
    assert "cedar" in done.stderr
    assert not (project.folder / "serving").exists()


def test_a_ragged_csv_is_named_with_file_and_line(project):
    path = project.folder / "data" / "blobs.csv"
    path.write_text(path.read_text() + "1,2,ash\n")
    done = project.stillhouse("run", "blobs.yaml")
    assert done.returncode == 2
    assert "ExampleGen: data/blobs.csv, line 602: 3 values, but the header names 5 columns" in done.stderr


def test_a_mistake_in_preprocessing_is_told_with_its_line(project):
    path = project.folder / "blobs_task.py"
    path.write_text(path.read_text().replace("scale_to_z_score(inputs[name])", "scale_to_z_score(inputs[name + 'x'])"))
    done = project.stillhouse("run", "blobs.yaml")
    assert done.returncode == 2
    assert "Transform: blobs_task.preprocessing_fn raised KeyError: 'ax'" in done.stderr
    assert "blobs_task.py:10" in done.stderr


@pytest.mark.soak
def test_a_label_outside_the_models_classes_is_refused(project):
    path = project.folder / "blobs_task.py"
    path.write_text(path.read_text().replace("Dense(3)", "Dense(2)"))
    done = project.stillhouse("run", "blobs.yaml")
    assert done.returncode == 2
    assert "the label 'tree' must be in 0..1, the model's classes (output width 2); found 2 in the" in " ".join(
        done.stderr.split()
    )


def test_a_root_that_cannot_be_written_is_named(project):
    done = project.stillhouse("run", "blobs.yaml", "--root", "/proc/stillhouse")
    assert done.returncode == 2
    assert "/proc/stillhouse: cannot be written" in done.stderr


def test_init_makes_a_project_whose_settings_are_valid(tmp_path):
    project = Project(tmp_path)
    assert project.stillhouse("init", "tumours").returncode == 0
    checked = project.stillhouse("run", "tumours.yaml", "--dry-run")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.soak
def test_init_makes_a_project_that_runs_as_generated_and_goes_on_after_an_interruption(tmp_path):
    project = Project(tmp_path, fresh=True)
    assert project.stillhouse("init", "tumours").returncode == 0
    process = project.start("run", "tumours.yaml")
    wait_for(process, "ExampleValidator")
    time.sleep(1)  # into Transform
    process.send_signal(signal.SIGINT)  # kill -9: test_retraining.py
    _, rest = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in rest
    assert not (tmp_path / "runs/tumours/comparison.json").exists()
    assert not list((tmp_path / "serving").glob("*"))

    done = project.stillhouse("run", "tumours.yaml")
    assert done.returncode == 0, done.stderr
    assert nodes(done, "from cache") == ["ExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator"]
    result = comparison(project, "runs/tumours")
    assert set(result["models"][-1]["slices"]) == {"diagnosis=benign", "diagnosis=malignant"}
    assert os.path.isdir(result["pushed"])
