"""The page, of made-up comparisons of every size, and what stands in it about predictions."""

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from stillhouse.components.report.page import compared_slices, compression, render
from stillhouse.components.report.predictions import calibration, confusion_matrix, disagreements, image_of
from stillhouse.modules.visible import CONTROL

VOID = {"meta", "br", "hr", "img", "input", "link"}
NASTY = "<script>alert('x')</script> ∆ 日本語 $\\alpha$"


class Tags(HTMLParser):
    """Checks that tags are closed in order, and keeps the text and what is asked from elsewhere."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.elsewhere, self.text, self.scripts = [], [], [], 0
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self._note(attributes)

    def handle_startendtag(self, tag, attributes):
        self._note(attributes)

    def _note(self, attributes):
        self.elsewhere += [value for name, value in attributes if name in ("src", "href") and "//" in (value or "")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def model(name, role, accuracy, slices, **more):
    return {
        "name": name,
        "role": role,
        "metrics": {"accuracy": accuracy, "loss": 1 - accuracy},
        "parameters": 1000,
        "bytes": 50_000 if role == "student" else 400_000,
        "latency_ms": 0.5 if role == "student" else 2.0,
        "latency_p95_ms": 2.5,
        "slices": {key: {"accuracy": accuracy - n / 1e4, "example_count": n + 1} for n, key in enumerate(slices)},
        "strategy": "one_device",
        "replicas": 1,
        "restarts": 0,
        "examples_per_second": 1000.0,
        "input_share": 0.1,
        "memory": {"bytes": {"a replica": {"activations": 5e6}}},
    } | more


def made_up(classes=3, teachers=1, slices=4, baseline=True, pushed="serving/x/1", name="blobs"):
    """Returns a comparison and its details."""
    keys = [f"tree={number}" for number in range(slices)]
    models = [model(f"Teacher-{n + 1}", "teacher", 0.9 + n / 1000, keys) for n in range(teachers)]
    if teachers > 1:
        models.append(model("Ensemble", "ensemble", 0.95, keys, strategy=None))
    if baseline:
        models.append(model("Baseline", "baseline", 0.85, keys))
    models.append(model("Student", "student", 0.88, keys))
    gate = {"metric": "accuracy", "change": -0.07, "min_change": -0.05, "reason": "too far down"}
    gates = [
        {"name": "teacher", "passed": bool(pushed), **gate},
        {"name": "serving", "passed": True, "reason": "as evaluated"},
    ]
    comparison = {"pipeline": name, "eval_examples": 500, "models": models, "gates": gates, "pushed": pushed}
    comparison["settings"] = {"name": NASTY}
    test = {"metric": "accuracy", "change": -0.07, "low": -0.09, "high": -0.05, "p": 0.001, "verdict": "worse"}
    comparison["pairs"] = [{"model": "Student", "other": row["name"], **test} for row in models[:-1]]
    if len(models) > 2:
        undecided = {"low": -0.1, "high": 0.1, "p": 0.5, "verdict": "undecided"}
        comparison["pairs"].append({"model": models[0]["name"], "other": models[1]["name"], **test, **undecided})
    comparison["fidelity"] = {"reference": models[0]["name"], "agreement": 0.9, "kl": 0.05, "examples": 500}
    gain = {"metric": "accuracy", "change": 0.03, "low": 0.01, "high": 0.05, "p": 0.001, "test": "McNemar"}
    comparison["distillation"] = {
        "reference": "Ensemble" if teachers > 1 else "Teacher-1",
        "baseline": "Baseline" if baseline else None,
        "gain": gain | {"confidence": 0.95} if baseline else None,
        "recovered": {"share": 0.3, "low": 0.1, "high": 0.5} if baseline else None,
        "recovered_reason": None if baseline else "there is no baseline",
        "fidelity": {"train": 0.99, "eval": 0.9},
        "entropy": 0.05,
        "entropy_transfer": None,
        "max_entropy": 2.3,
        "soft_gradient_share": 0.8,
        "diagnosis": [f"the teachers repeat the labels {NASTY}"],
    }
    views = {"views": {"augment": True}, "student_views": {"augment": True}}
    treated = {"updates": 2820, "student_updates": 2820, "validation": None, **views}
    comparison["baseline"] = treated if baseline else None
    comparison["warnings"] = [f"class {NASTY}: the student never predicts it"]
    random = np.random.RandomState(1)
    labels = random.randint(0, classes, 500)
    names = [NASTY if number == 1 else f"class {number}" for number in range(classes)]
    of = {one["name"]: random.dirichlet(np.ones(classes), 500) for one in models}
    differing = disagreements(labels, of["Student"], of[models[0]["name"]])
    shown = {"student": names[0], "student_probability": 0.5, "other": names[1], "other_probability": 0.6}
    examples = [
        {"number": number, "label": names[labels[number]], "image": [[0.0, 0.5, 1.0]] * 3, **shown}
        for number in differing.pop("telling")
    ]
    details = {
        "classes": names,
        "confusion": {one: confusion_matrix(labels, found) for one, found in of.items()},
        "calibration": {one: calibration(labels, found) for one, found in of.items()},
        "disagreements": differing | {"examples": examples},
        "histories": {one["name"]: {"loss": [1.0, 0.5]} for one in models if one["role"] != "ensemble"}
        | {"Student": {"loss": [1.0, 0.6], "hard_loss": [1.0, 0.7], "soft_loss": [1.0, 0.5]}},
        "min_slice_examples": 3,
        "versions": {"stillhouse": "1"},
        "artifacts": {"model_1": ["/runs/model/5"]},
        "commit": "0123abc with uncommitted changes",
        "data": {
            "span": 7,
            "splits": {"train": 2000, "eval": 500},
            "features": [
                {
                    "name": NASTY,
                    "kind": "string",
                    "presence": "required",
                    "splits": {"train": {"missing": 0.25, "values": "3 distinct: 'a' 4"}},
                }
            ],
            "left_out": 3,
            "anomalies": [],
        },
        "dark_knowledge": {
            "classes": names,
            "temperatures": [
                {
                    "temperature": temperature,
                    "mean_soft_targets": np.full([classes, classes], 1 / classes).tolist(),
                    "entropy": {"mean": 0.5, "largest_possible": 1.1},
                }
                for temperature in (1.0, 4.0)
            ],
        },
    }
    return comparison, details


@pytest.mark.parametrize(
    "given",
    [
        {"classes": 2},
        {"classes": 10, "teachers": 10},
        {"classes": 200, "slices": 1000},
        {"baseline": False, "pushed": None},
        {"slices": 0, "name": NASTY},
    ],
)
def test_a_page_is_whole_by_itself_and_small_whatever_it_shows(given):
    page = render(*made_up(**given))
    found = Tags(page)
    assert found.elsewhere == []
    assert found.scripts == 1  # its own
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(page.encode()) < 2_000_000
    assert NASTY in found.words


def test_the_first_screen_says_whether_and_why_not():
    words = Tags(render(*made_up(pushed=None))).words
    assert "Not pushed" in words
    assert "gate teacher failed: too far down" in words
    assert "student: 0.0700 accuracy lost, 8.0× smaller, 4.0× faster than Teacher-1" in words
    pushed = Tags(render(*made_up())).words
    assert "Pushed" in pushed
    assert "Not pushed" not in pushed


def test_what_distillation_gained_and_why_stands_before_the_models():
    words = Tags(render(*made_up())).words
    for text in (
        "Gain +0.0300 accuracy over Baseline (95% interval +0.0100 to +0.0500, p = 0.001, McNemar), recovers 30% (10% "
        "to 50%) of the gap to Teacher-1; soft targets hold 0.05 of 2.30 nats.",
        "The student agrees with its teachers on 99.0% of its training inputs and 90.0% of eval",
        f"the teachers repeat the labels {NASTY}",
        "Baseline: 2,820 updates (the student's number), last epoch, same views as the student.",
    ):
        assert text in words
    without = Tags(render(*made_up(baseline=False))).words
    assert "Gain unknown; soft targets hold" in without
    assert "Share of the gap: there is no baseline." in without


def test_a_run_before_there_was_a_diagnosis_has_no_such_section():
    comparison, details = made_up()
    del comparison["distillation"], comparison["baseline"]
    assert "What distillation gained" not in render(comparison, details)


def test_data_lineage_and_the_way_to_run_it_again_are_told():
    comparison, details = made_up()
    details["data"]["anomalies"] = [{"split": "eval", "feature": "tree", "reason": "new values"}]
    words = Tags(render(comparison, details, again="stillhouse run runs/x/settings.yaml --root runs/x")).words
    for text in (
        "Span 7: train 2,000 examples, eval 500 examples.",
        "25.0 %",
        "3 distinct: 'a' 4",
        "3 more not listed",
        "eval, tree: new values",
        "0123abc with uncommitted changes",
        "stillhouse run runs/x/settings.yaml --root runs/x",
        "T = 4: entropy 0.500 nats (maximum 1.100)",
    ):
        assert text in words
    assert "No schema anomalies" in Tags(render(*made_up())).words


def test_control_characters_of_names_are_shown_and_the_settings_keep_their_meaning():
    comparison, details = made_up(name="a\x1b[31mb\0\x9b2J\u202etxt\ud800")
    comparison["settings"]["preprocessing"] = {"word": "a\x1b\x9b\u202e∆"}
    comparison["models"][0]["slices"] = {"tree=\x07": comparison["models"][0]["slices"]["tree=0"]}
    comparison["models"][-1]["slices"] = {"tree=\x07": comparison["models"][-1]["slices"]["tree=0"]}
    details["classes"] = ["\x1b]0;title\x07", *details["classes"][1:]]
    page = render(comparison, details, "stillhouse run 'a\x1b'")
    assert not CONTROL.search(page)
    assert page.encode()
    words = Tags(page).words
    for shown in (r"a\x1b[31mb\x00\x9b2J\u202etxt\ud800", r"tree=\x07", r"\x1b]0;title\x07", r"run 'a\x1b'"):
        assert shown in words
    shown = html.unescape(re.search("<pre><code>(.*?)</code>", page, re.DOTALL)[1])
    assert json.loads(shown) == comparison["settings"]


def test_metrics_stand_with_their_intervals():
    comparison, details = made_up()
    comparison["models"][-1]["intervals"] = {"accuracy": [0.86, 0.9]}
    words = Tags(render(comparison, details)).words
    assert "0.8800 0.8600 to 0.9000" in words
    assert "95 % confidence intervals" in words


def test_curves_show_alpha_and_temperature():
    comparison, details = made_up()
    details["histories"]["Student"] |= {"alpha": [0.9, 0.1], "temperature": [4.0, 1.0]}
    words = Tags(render(comparison, details)).words
    assert "Student, α" in words
    assert "Student, T" in words


def test_curves_show_the_quality_on_a_validation_split_if_there_is_one():
    comparison, details = made_up()
    assert "validation split" not in Tags(render(comparison, details)).words
    details["histories"]["Student"] |= {"validation_loss": [0.9, 0.8], "validation_accuracy": [0.5, 0.6]}
    assert "validation split" in Tags(render(comparison, details)).words


def test_an_ensemble_has_hintons_three_rows():
    words = Tags(render(*made_up(teachers=3))).words
    assert "single net, hard labels 0.8500 ensemble of teachers 0.9500 distilled single net 0.8800" in words
    assert "single net, hard labels" not in render(*made_up(teachers=1))


def test_what_is_not_known_of_a_model_is_left_out():
    """A regression has no classes, a teacher trained elsewhere no history."""
    comparison, details = made_up()
    for name in ("classes", "confusion", "calibration", "disagreements"):
        del details[name]
    details["histories"] = {}
    comparison["models"][0] |= dict.fromkeys(("strategy", "replicas", "restarts", "input_share", "memory"))
    page = render(comparison, details)
    assert "Calibration" not in page
    assert "<h2>Training" in page


def test_slices_come_worst_first_and_those_too_small_to_judge_last():
    def of(role, accuracies):
        slices = {
            name: {"accuracy": value, "loss": 1 - value, "example_count": count}
            for name, (value, count) in accuracies.items()
        }
        return {"name": role, "role": role, "slices": slices}

    student = of("student", {"a": (0.9, 50), "b": (0.7, 50), "c": (0.1, 2)})
    teacher = of("teacher", {"a": (0.8, 50), "b": (0.9, 50), "c": (1.0, 2)})
    found = compared_slices([teacher, student], student, "accuracy", 30)
    assert [(one["name"], one["too_small"]) for one in found] == [("b", False), ("a", False), ("c", True)]
    assert found[0]["changes"]["teacher"] == pytest.approx(-0.2)
    by_loss = compared_slices([teacher, student], student, "loss", 30)
    assert by_loss[0]["changes"]["teacher"] == pytest.approx(-0.2)  # a higher loss is worse


def test_a_larger_and_slower_student_is_called_so():
    student, teacher = {"bytes": 20, "latency_ms": 3.0}, {"name": "Teacher-1", "bytes": 10, "latency_ms": 1.5}
    gate = {"name": "teacher", "metric": "auc", "change": 0.01}
    assert compression(student, teacher, gate) == "student: 0.0100 auc gained, 2.0× larger, 2.0× slower than Teacher-1"


def test_calibration_is_the_weighted_gap_between_confidence_and_accuracy():
    """By hand: two examples at 0.9, one of them right; two at 0.6, both right."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    found = calibration(np.array([0, 1, 1, 0]), probabilities)
    assert found["error"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert [(one["confidence"], one["accuracy"], one["examples"]) for one in found["bins"]] == [
        (pytest.approx(0.6), 1.0, 2),
        (pytest.approx(0.9), 0.5, 2),
    ]


def test_confusions_and_disagreements_are_counted():
    labels = np.array([0, 1, 1])
    student = np.array([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    other = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    assert confusion_matrix(labels, student) == [[1, 0], [1, 1]]
    found = disagreements(labels, student, other)
    assert (found["share"], found["student_right"], found["other_right"]) == (2 / 3, 1 / 3, 1 / 3)
    assert found["telling"] == [2, 1]  # 0.9 · 0.9 before 0.7 · 0.8


@pytest.mark.parametrize(
    ("features", "side"),
    [
        ({f"pixel{n}": [float(n)] for n in range(16)}, 4),
        ({"image": list(range(25)), "width": [3.0]}, 5),
        ({f"pixel{n}": [float(n)] for n in range(15)}, None),
        ({"amount": [1.0], "city": [b"x"]}, None),
        ({f"pixel{n}": [7] for n in range(9)}, 3),
    ],
)
def test_features_that_look_like_a_square_image_become_one(features, side):
    found = image_of(features)
    assert (found and len(found)) == side
    if side == 4:
        assert found[0][:2] == [0.0, pytest.approx(1 / 15)]
        assert found[3][3] == 1.0
