"""Heads other than one class of several, through the whole pipeline, with what else data and distillation can be."""

import json

import blobs
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
import yaml
from conftest import Project

MULTI_LABEL = """
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras


def preprocessing_fn(inputs):
    marks = tf.stack([tf.strings.regex_full_match(inputs["marks"][:, 0], f".*{name}.*") for name in "xyz"], axis=1)
    columns = [tft.scale_to_z_score(inputs[name]) for name in ("a", "b", "c", "d")]
    return {"features": tf.concat(columns, axis=1), "marks": tf.cast(marks, tf.int64)}


def network(units):
    features = keras.Input([4], name="features")
    hidden = keras.layers.Dense(units, activation="relu", name="hidden")(features)
    return keras.Model(features, keras.layers.Dense(3)(hidden))


def build_teacher(units=32):
    return network(units)


def build_wide_teacher(units=64):
    return network(units)


def build_student(units=6):
    return network(units)
"""

REGRESSION = """
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras


def preprocessing_fn(inputs):
    columns = [tft.scale_to_z_score(inputs[name]) for name in ("a", "b", "c", "d")]
    return {"features": tf.concat(columns, axis=1), "height": inputs["height"][:, 0]}


def augment(features, seed):
    noise = tf.random.stateless_normal(tf.shape(features["features"]), seed, stddev=0.01)
    return {"features": features["features"] + noise}


def network(units):
    features = keras.Input([4], name="features")
    return keras.Model(features, keras.layers.Dense(1)(keras.layers.Dense(units, activation="relu")(features)))


def build_teacher(units=32):
    return network(units)


def build_student(units=6):
    return network(units)
"""

# Without the gate against the pushed version: evaluations are most of a run.
OPEN_GATES = {"gates": {"teacher": {"max_drop": 0.99}, "baseline": {"min_gain": -0.99}, "pushed": None}}


def points(count, seed=0):
    return np.random.RandomState(seed).normal(size=(count, 4)).round(3)


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")


def project_of(folder, task, data, **settings):
    (folder / "own_task.py").write_text(task)
    changes = {"task": "own_task", "data": {"path": "data", "splits": {"train": 3, "eval": 1}} | data} | settings
    (folder / "own.yaml").write_text(yaml.safe_dump(blobs.settings(**changes)))
    return Project(folder)


def run(project, *arguments):
    done = project.stillhouse("run", "own.yaml", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def several_labels(tmp_path):
    rows = [
        [*point, "".join(name for name, x in zip("xyz", point, strict=False) if x > 0) or "-"] for point in points(600)
    ]
    write(tmp_path / "data" / "x.csv", [*blobs.COLUMNS, "marks"], rows)
    write(tmp_path / "more" / "x.csv", blobs.COLUMNS, points(300, seed=1))
    fast = {"name": "adam", "learning_rate": 0.02}
    hint = {"teacher": 3, "teacher_layer": "hidden", "student_layer": "hidden", "kind": "cosine", "weight": 0.1}
    return project_of(
        tmp_path,
        MULTI_LABEL,
        {"label": "marks", "transfer": "more"},
        head="multi_label",
        teachers=[
            {"epochs": 20, "optimizer": fast, "copies": 2, "shard_copies": True},
            {"epochs": 20, "optimizer": fast, "builder": "build_wide_teacher", "weight": 2.0},
        ],
        ensemble={"combination": "geometric"},
        student={
            "epochs": 20,
            "optimizer": fast,
            "label_smoothing": 0.05,
            "distillation": {
                "objective": "soft_cross_entropy",
                "temperature": {"start": 4.0, "end": 1.0, "schedule": "cosine"},
                "targets_dtype": "float16",
                "hints": [hint],
            },
        },
        evaluation=OPEN_GATES | {"metric": "MultiLabelAUC"},
    )


@pytest.mark.soak
def test_several_labels_with_transfer_data_hints_schedules_and_unlike_teachers(several_labels):
    result = run(several_labels)
    metrics = {model["name"]: model["metrics"] for model in result["models"]}
    assert list(metrics) == ["Teacher-1", "Teacher-2", "Teacher-3", "Ensemble", "Baseline", "Student"]
    assert metrics["Ensemble"]["accuracy"] > 0.9
    assert metrics["Student"]["accuracy"] > 0.85
    assert metrics["Student"]["loss"] < 0.5
    assert metrics["Student"]["auc"] > 0.95
    assert {gate["metric"] for gate in result["gates"] if gate["name"] != "serving"} == {"auc"}
    parameters = {model["name"]: model["parameters"] for model in result["models"]}
    assert parameters["Teacher-3"] == 4 * 64 + 64 + 64 * 3 + 3

    def card(node):
        (path,) = several_labels.folder.glob(f"runs/blobs/artifacts/{node}/model/*/Format-Serving/assets.extra/*")
        return json.loads(path.read_text())

    labelled = card("Teacher-3")["train_examples"]
    assert card("Teacher-1")["train_examples"] + card("Teacher-2")["train_examples"] == labelled
    assert card("Student")["transfer_examples"] == 300
    assert card("Student")["train_examples"] == labelled + 300
    assert card("Student")["history"]["temperature"][0] == 4.0

    served = tf.saved_model.load(result["pushed"]).signatures["serving_default"]
    example = tf.train.Example()
    for name, value in zip(blobs.COLUMNS, (2.0, -2.0, 2.0, 0.0), strict=True):
        example.features.feature[name].float_list.value.append(value)
    (probabilities,) = served(examples=tf.constant([example.SerializeToString()]))["probabilities"].numpy()
    assert list(probabilities > 0.5) == [True, False, True]


@pytest.fixture
def one_number(tmp_path):
    rows = [[*point, round(float(2 * point[0] - point[1] + 5), 4)] for point in points(600)]
    for span, count in ((1, 50), (2, 600)):
        folder = tmp_path / "data" / f"span-{span}" / "v1"
        folder.mkdir(parents=True)
        columns = zip([*blobs.COLUMNS, "height"], zip(*rows[:count], strict=True), strict=True)
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), folder / "x.parquet")
    weights = tf.constant([[2.0], [-1.0], [0.0], [0.0]])
    elsewhere = tf.Module()
    elsewhere.weights = tf.Variable(weights)
    spec = tf.TensorSpec([None, 4], tf.float32, name="x")
    answer = tf.function(lambda x: {"height": x @ elsewhere.weights + 5.0}).get_concrete_function(spec)
    tf.saved_model.save(elsewhere, str(tmp_path / "elsewhere"), signatures={"heights": answer})
    fast = {"name": "adam", "learning_rate": 0.03, "schedule": "cosine"}
    return project_of(
        tmp_path,
        REGRESSION,
        {"label": "height", "path": "data/span-{SPAN}/v{VERSION}", "format": "parquet"},
        head="regression",
        teachers=[
            {"epochs": 30, "optimizer": fast},
            {"saved_model": "elsewhere", "signature": "heights", "weight": 3.0},
        ],
        student={
            "epochs": 30,
            "optimizer": fast,
            "augment": True,
            "distillation": {"targets": "online"},
        },
        evaluation={
            "metric": "MeanSquaredError",
            "gates": {"teacher": {"max_drop": 10.0}, "baseline": None, "pushed": None},
        },
    )


@pytest.mark.soak
def test_a_number_from_parquet_spans_with_a_teacher_from_elsewhere_asked_online_about_augmented_inputs(one_number):
    result = run(one_number)
    assert 100 < result["eval_examples"] < 200  # a quarter of the newest span's 600, not of 50
    # Both spans are of one distribution, however small the first is.
    assert result["warnings"] == []
    metrics = {model["name"]: model["metrics"] for model in result["models"]}
    # Of the training split's standard score, hence not quite the one that wrote the data.
    assert metrics["Teacher-2"]["mean_absolute_error"] < 0.5
    assert metrics["Student"]["mean_absolute_error"] < 0.5
    assert metrics["Student"]["loss"] == pytest.approx(metrics["Student"]["mean_absolute_error"] ** 2, rel=3)
    gates = {gate["name"]: gate for gate in result["gates"]}
    assert gates["teacher"]["metric"] == "loss"
    assert gates["serving"]["passed"]
    served = tf.saved_model.load(result["pushed"]).signatures["serving_default"]
    example = tf.train.Example()
    for name, value in zip(blobs.COLUMNS, (1.0, 0.0, 0.0, 0.0), strict=True):
        example.features.feature[name].float_list.value.append(value)
    (height,) = served(examples=tf.constant([example.SerializeToString()]))["prediction"].numpy()
    assert height == pytest.approx(7.0, abs=0.7)
