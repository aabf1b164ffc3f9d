"""The recipes as pipelines, on data that is made up here: small enough for a minute each."""

import csv
import json
import random
import re

import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import Project
from tiny_encoder import write_encoder

from stillhouse.components.ranking_metrics import reciprocal_rank
from stillhouse.modules.models.serving import read_records, without_feature
from stillhouse.pipelines.example_data.few_digits import PIXELS

WORDS = ("red", "green", "blue", "black", "white", "pink", "gold", "fast", "slow", "round", "flat", "tall", "small")
QUESTIONS, CANDIDATES = 60, 4


def write_questions(folder):
    """Each question has one passage with its own two words among passages with others."""
    chance = random.Random(1)
    folder.mkdir(parents=True)
    for name, first, labelled in (("train", 0, True), ("eval", 1000, True), ("unlabelled", 2000, False)):
        path = folder / ("unlabelled" if name == "unlabelled" else "pairs") / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            columns = ["question_id", "question", "passage", *(["relevant"] if labelled else [])]
            writer.writerow(columns)
            for question in range(first, first + QUESTIONS):
                one, other = chance.sample(WORDS, 2)
                for candidate in range(CANDIDATES):
                    passage = (one, other) if candidate == 0 else chance.sample(sorted(set(WORDS) - {one, other}), 2)
                    row = [
                        question,
                        f"Which thing is {one} and {other}?",
                        f"A {passage[1]} thing that is {passage[0]}.",
                    ]
                    writer.writerow(row + ([int(candidate == 0)] if labelled else []))


SIZE = {"vocabulary": 80, "length": 20, "layers": 2, "width": 16, "heads": 2}
TEXT = {
    "name": "answers",
    "task": "stillhouse.modules.tasks.text",
    "data": {
        "path": "questions/pairs",
        "label": "relevant",
        "splits": {"train": "train*", "eval": "eval*"},
        "transfer": "questions/unlabelled",
    },
    "preprocessing": {"text": ["question", "passage"], "vocabulary": 80, "length": 20},
    "pretraining": {
        "large": {"hyperparameters": SIZE, "epochs": 2},
        "small": {
            "hyperparameters": SIZE | {"layers": 1, "segments": False},
            "epochs": 2,
            "start": {"pretraining": "large", "layers": {"layer_0": "layer_1"}},
            "distillation": {
                "teacher": "large",
                "hints": [{"teacher_layer": "states", "student_layer": "states", "kind": "cosine", "weight": 0.14}],
            },
        },
    },
    "teachers": [
        {
            "hyperparameters": SIZE,
            "start": {"pretraining": "large"},
            "epochs": 8,
            "optimizer": {"learning_rate": 0.003},
        },
        {"hyperparameters": SIZE | {"dropout": 0.0}, "epochs": 8, "optimizer": {"learning_rate": 0.003}},
    ],
    "student": {
        "hyperparameters": SIZE | {"layers": 1},
        "start": {"pretraining": "small"},
        "epochs": 8,
        "optimizer": {"learning_rate": 0.003},
        "distillation": {"temperature": 2.0, "alpha": 0.5, "head_per_teacher": True, "pretraining": {"epochs": 2}},
    },
    "evaluation": {
        "metric": "MeanReciprocalRank",
        "query": "question_id",
        "confidence_intervals": True,
        "gates": {"teacher": {"max_drop": 0.99}, "baseline": None, "pushed": None},
    },
    "push": {"path": "serving"},
}


def run(folder, settings):
    project = Project(folder)
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    done = project.stillhouse("run", "settings.yaml", "--root", "run")
    assert done.returncode == 0, done.stderr
    return project, done, json.loads((folder / "run" / "comparison.json").read_text())


# Their parts are tested one by one elsewhere; whole runs of them take three minutes.
pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_questions(folder / "questions")
    return run(folder, TEXT)


def card(folder, node):
    (path,) = (folder / "run" / "artifacts" / node / "model").glob("*/Format-Serving/assets.extra/stillhouse.json")
    return json.loads(path.read_text())


def test_a_pipeline_pre_trains_distils_twice_and_ranks_candidates(text):
    project, done, found = text
    assert [(model["name"], model["role"]) for model in found["models"]] == [
        ("Teacher-1", "teacher"),
        ("Teacher-2", "teacher"),
        ("Ensemble", "ensemble"),
        ("Student", "student"),
    ]
    for model in found["models"]:
        assert {"accuracy", "loss", "mean_reciprocal_rank", "precision_at_one"} == set(model["metrics"])
        for name, (low, high) in model["intervals"].items():
            assert low <= model["metrics"][name] <= high
        assert set(model["intervals"]) == set(model["metrics"])
    assert found["gates"][0]["metric"] == "mean_reciprocal_rank"
    # All but the pooler's and the classes'.
    assert "Teacher-1: initialised 38 of 42 weights from pre-training" in done.stderr
    for name in ("Pretraining.large", "Pretraining.small", "Student.pretraining"):
        losses = card(project.folder, name)["history"]["loss"]
        assert losses[-1] < losses[0]
    # Words are told from the others: by chance the mean reciprocal rank of four candidates is 0.52.
    assert found["models"][0]["metrics"]["mean_reciprocal_rank"] > 0.7


def test_the_ranks_are_those_of_what_is_served(text):
    project, _, found = text
    student = tf.saved_model.load(str(project.folder / found["pushed"]))
    (pattern,) = project.folder.glob("run/artifacts/ExampleGen/examples/*/Split-eval")
    records = list(read_records(f"{pattern}/*").as_numpy_iterator())
    features = [tf.train.Example.FromString(record).features.feature for record in records]
    questions = np.array([one["question_id"].int64_list.value[0] for one in features])
    relevant = np.array([one["relevant"].int64_list.value[0] for one in features]) == 1
    requests = tf.constant([without_feature(record, "relevant") for record in records])
    scores = student.signatures["serving_default"](examples=requests)["probabilities"].numpy()[:, 1]
    ranks = [reciprocal_rank(relevant[questions == one], scores[questions == one]) for one in np.unique(questions)]
    metrics = next(model for model in found["models"] if model["role"] == "student")["metrics"]
    assert metrics["mean_reciprocal_rank"] == pytest.approx(np.mean(ranks), abs=1e-4)
    assert len(ranks) == QUESTIONS


def test_the_student_has_a_head_for_each_teacher(text):
    project, _, _ = text
    for name in ("Student", "Student.pretraining"):
        (path,) = (project.folder / "run" / "artifacts" / name / "model").glob("*/Format-Serving")
        names = [variable.name for variable in tf.saved_model.load(str(path)).network.variables]
        assert {"classes_1/kernel:0", "classes_2/kernel:0"} <= set(names)


NOISY = {
    "name": "few",
    "task": "stillhouse.modules.tasks.images",
    "data": {
        "path": "digits/labelled",
        "label": "label",
        "splits": {"train": "train*", "eval": "eval*"},
        "transfer": "digits/unlabelled",
    },
    "preprocessing": {"pixels": "pixel_", "brightest": 16.0},
    "teachers": [
        {
            "hyperparameters": {"side": 8, "classes": 10, "width": 8},
            "epochs": 20,
            "batch_size": 16,
            "optimizer": {"learning_rate": 0.005},
        }
    ],
    "student": {
        "hyperparameters": {"side": 8, "classes": 10, "width": 4, "dropout": 0.1, "survival": 0.9},
        "epochs": 10,
        "optimizer": {"learning_rate": 0.005},
        "augment": True,
        "distillation": {
            "alpha": 1.0,
            "temperature": 1.0,
            "dark_knowledge": [],
            "pseudo_labels": {"kind": "hard", "min_confidence": 0.05, "rounds": 2},
        },
    },
    "evaluation": {"gates": {"teacher": {"max_drop": 0.99}, "baseline": None, "pushed": None}},
    "push": {"path": "serving"},
}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("noisy")
    frame = load_digits(as_frame=True).frame.astype(int)
    frame.columns = [*PIXELS, "label"]
    parts = {"labelled/train.csv": frame[:150], "labelled/eval.csv": frame[150:300]}
    parts["unlabelled/unlabelled.csv"] = frame[300:600][PIXELS]
    for name, part in parts.items():
        (folder / "digits" / name).parent.mkdir(parents=True, exist_ok=True)
        part.to_csv(folder / "digits" / name, index=False)
    return run(folder, NOISY)


def test_students_become_teachers_round_by_round(noisy):
    project, done, found = noisy
    roles = [(model["name"], model["role"]) for model in found["models"]]
    assert roles == [("Teacher-1", "teacher"), ("Student-1", "round"), ("Student", "student")]
    assert found["pushed"]
    chosen = re.compile(r"pseudo-labels, hard: \d+ of 300 unlabelled examples")
    lines = [line for line in done.stderr.splitlines() if chosen.search(line)]
    assert len(lines) == 2
    for name in ("Student-1", "Student"):
        told = card(project.folder, name)
        assert told["train_examples"] - told["transfer_examples"] == 150
        assert told["transfer_examples"] > 0
    page = (project.folder / "run" / "report.html").read_text()
    assert "Student-1" in page


ENCODER_WORDS = {"sums": "the sum of", "cafes": "cafeteria naive"}  # words of the tiny encoder's vocabulary


@pytest.fixture(scope="module")
def pretrained_teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained_teacher")
    write_encoder(folder / "encoder")
    chance = random.Random(1)
    for name, count in (("texts/train", 40), ("texts/validation", 20), ("texts/eval", 100), ("unlabelled/all", 200)):
        path = folder / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "kind"] if path.parent.name == "texts" else ["text"])
            for _ in range(count):
                kind, words = chance.choice(sorted(ENCODER_WORDS.items()))
                text = " ".join(chance.choices([*words.split(), "(", ")", "-"], k=5))
                writer.writerow([text, kind] if path.parent.name == "texts" else [text])
    sizes = {"length": 12, "classes": 2}
    settings = {
        "name": "pretrained",
        "task": "stillhouse.modules.tasks.pretrained_text",
        "data": {
            "path": "texts",
            "label": "kind",
            "splits": {"train": "train*", "validation": "validation*", "eval": "eval*"},
            "transfer": "unlabelled",
        },
        "preprocessing": {"text": ["text"], "length": 12, "encoder": str(folder / "encoder")},
        "teachers": [
            {
                "hyperparameters": sizes | {"encoder": str(folder / "encoder")},
                "epochs": 20,
                "batch_size": 8,
                "optimizer": {"learning_rate": 0.03},
            }
        ],
        "student": {
            "hyperparameters": sizes | {"buckets": 16, "width": 4, "dropout": 0.2},
            "epochs": 10,
            "optimizer": {"learning_rate": 0.03},
            "distillation": {"alpha": 1.0, "temperature": 1.0},
        },
        "evaluation": {"gates": {"teacher": {"max_drop": 0.99}, "baseline": None, "pushed": None}},
        "push": {"path": "serving"},
    }
    return run(folder, settings)


def test_a_student_learns_from_a_published_encoder_that_training_leaves_as_it_is(pretrained_teacher):
    project, _, found = pretrained_teacher
    teacher, student = (found["models"][0], found["models"][-1])
    assert (teacher["role"], student["role"]) == ("teacher", "student")
    assert teacher["metrics"]["accuracy"] > 0.65  # of an encoder of random weights
    assert student["metrics"]["accuracy"] > 0.8
    assert card(project.folder, "Student")["transfer_examples"] == 200
    # What is pushed has the vocabulary with it and reads raw text.
    (project.folder / "encoder" / "vocab.txt").unlink()
    served = tf.saved_model.load(str(project.folder / found["pushed"])).signatures["serving_default"]
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"Cafeteria, naive"]))
    request = tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()
    assert served(examples=tf.constant([request]))["label"].numpy().tolist() == [b"cafes"]
