"""The lines about the gain and about the baseline, of comparisons with and without each figure."""

import pytest

from stillhouse.modules.distillation.summary import learnt, summary, treatment

GAIN = {
    "metric": "accuracy",
    "change": 0.1043,
    "low": 0.0871,
    "high": 0.1215,
    "p": 3e-20,
    "test": "McNemar",
    "confidence": 0.95,
}
DISTILLATION = {
    "reference": "Ensemble",
    "baseline": "Baseline",
    "gain": GAIN,
    "recovered": {"share": 0.86, "low": 0.79, "high": 0.93},
    "fidelity": {"train": 0.97, "eval": 0.95},
    "entropy": 0.05,
    "entropy_transfer": 0.61,
    "max_entropy": 2.303,
    "soft_gradient_share": 0.8,
}


def test_the_summary_has_gain_share_and_entropies():
    assert summary(DISTILLATION) == (
        "gain +0.1043 accuracy over Baseline (95% interval +0.0871 to +0.1215, p = 3e-20, McNemar), recovers 86% (79% "
        "to 93%) of the gap to Ensemble; soft targets hold 0.05 and 0.61 (unlabelled) of 2.30 nats"
    )
    assert learnt(DISTILLATION) == (
        "the student agrees with its teachers on 97.0% of its training inputs and 95.0% of eval; the soft term had "
        "80.0% of the gradient after its first epoch"
    )


def test_what_is_unknown_is_left_out():
    nothing = dict.fromkeys(DISTILLATION) | {"fidelity": {"train": None, "eval": None}}
    assert summary(nothing) == "gain unknown"
    assert learnt(nothing) is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"validation": {"metric": "accuracy", "best_epoch": 12, "epochs": 30}},
            "2,820 updates (the student's number), best epoch 12 of 30 by validation, same views as the student",
        ),
        (
            {"validation": {"metric": "accuracy", "keep": "last", "best_epoch": 30, "epochs": 30}},
            "2,820 updates (the student's number), last epoch, same views as the student",
        ),
        (
            {"views": {"augment": True, "noise": 0.1, "swap": {"a": 0.1, "b": 0.2}}},
            "2,820 updates (the student's number), last epoch, views: augment, noise 0.1, swap of a, b; the student's: "
            "augment",
        ),
        ({"updates": 282}, "282 updates (the student 2,820), last epoch, same views as the student"),
        ({"views": {}}, "2,820 updates (the student's number), last epoch, views: none; the student's: augment"),
        (
            {"views": {}, "student_views": {}},
            "2,820 updates (the student's number), last epoch, no views, as the student",
        ),
        ({"updates": None, "views": None}, "last epoch"),
    ],
)
def test_the_baselines_treatment_is_told_relative_to_the_student(changes, line):
    views = {"views": {"augment": True}, "student_views": {"augment": True}}
    assert treatment({"updates": 2820, "student_updates": 2820, "validation": None} | views | changes) == line
