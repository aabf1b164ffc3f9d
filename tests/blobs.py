"""A small task for tests: three classes with string labels in four dimensions, as a user's project in a folder."""

from pathlib import Path

import numpy as np
import yaml

CLASSES = ("ash", "birch", "cedar")
COLUMNS = ("a", "b", "c", "d")

TASK = """
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

LABEL = "tree"


def preprocessing_fn(inputs):
    columns = [tft.scale_to_z_score(inputs[name]) for name in ("a", "b", "c", "d")]
    return {
        "features": tf.concat(columns, axis=1),
        LABEL: tft.compute_and_apply_vocabulary(inputs[LABEL], vocab_filename=LABEL),
    }


def network(units):
    features = keras.Input([4], name="features")
    hidden = keras.layers.Dense(units, activation="relu")(features)
    return keras.Model(features, keras.layers.Dense(3)(hidden))


def build_teacher(units=16):
    return network(units)


def build_student(units=3):
    return network(units)


def build_wide():
    return network(45_000)


def build_with_dropout(units=5):
    features = keras.Input([4], name="features")
    hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(units, activation="relu")(features))
    return keras.Model(features, keras.layers.Dense(3)(hidden))
"""


def settings(**changes) -> dict:
    """Returns the settings of the task as a mapping; `changes` replace top-level sections."""
    return {
        "name": "blobs",
        "task": "blobs_task",
        "data": {"path": "data", "format": "csv", "label": "tree", "splits": {"train": 3, "eval": 1}},
        "teachers": [{"epochs": 10, "optimizer": {"learning_rate": 0.01}}],
        "student": {"epochs": 10, "optimizer": {"learning_rate": 0.03}},
        "evaluation": {
            "slices": ["tree"],
            "gates": {
                "teacher": {"max_drop": 0.2, "max_drop_per_slice": 0.5, "min_slice_examples": 10},
                "baseline": {"min_gain": -0.2},
                "pushed": {"max_drop": 0.2},
            },
        },
        "push": {"path": "serving"},
    } | changes


def rows(count: int = 600, seed: int = 0) -> list[list]:
    """Returns examples: four numbers around the corner of their class, and the class's name."""
    random = np.random.RandomState(seed)
    ids = random.randint(0, len(CLASSES), count)
    points = random.normal(size=(count, len(COLUMNS))) * 0.7
    points[np.arange(count), ids] += 2.0
    return [[*(round(float(x), 4) for x in point), CLASSES[i]] for point, i in zip(points, ids, strict=True)]


def write_csv(path: Path, examples: list[list]) -> None:
    """Writes examples as CSV with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join((*COLUMNS, "tree")), *(",".join(map(str, row)) for row in examples)]
    path.write_text("\n".join(lines) + "\n")


def write_project(folder: Path, **changes) -> Path:
    """Writes task module, data and settings into `folder` and returns the settings file."""
    (folder / "blobs_task.py").write_text(TASK)
    write_csv(folder / "data" / "blobs.csv", rows())
    path = folder / "blobs.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    return path
