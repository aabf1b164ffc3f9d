"""Each rule with the figures that call for it, and that no two of them contradict each other."""

import itertools
from dataclasses import replace

import pytest

from stillhouse.modules.distillation.diagnosis import MAX_SENTENCES, Change, Facts, diagnose

BETTER, UNDECIDED, WORSE = Change(0.10, 0.08, 0.12), Change(0.001, -0.004, 0.006), Change(-0.02, -0.03, -0.01)
GAP = Change(0.12, 0.10, 0.14)
HEALTHY = Facts(
    metric="accuracy",
    reference="Ensemble",
    baseline="Baseline",
    gain=BETTER,
    gap=GAP,
    recovered=0.86,
    entropy=0.9,
    max_entropy=2.3,
    agreement_train=0.97,
    agreement_eval=0.95,
    soft_gradient_share=0.8,
    temperature=4.0,
    only_reference_right=200,
    only_baseline_right=20,
)
SMALL_GAIN = replace(HEALTHY, gain=UNDECIDED, recovered=0.01)


def test_a_student_with_most_of_the_gap_is_told_that_distillation_pays_and_nothing_else():
    assert diagnose(replace(HEALTHY, entropy=0.01, agreement_train=0.8)) == [
        "The student is better than Baseline by 0.1000 accuracy and recovers 86% of the gap to Ensemble: distillation "
        "pays."
    ]


def test_a_partial_gain_says_how_much_of_the_gap_is_recovered():
    (sentence,) = diagnose(replace(HEALTHY, recovered=0.45))
    assert "45% of the gap to Ensemble: more inputs, epochs or weights may recover more" in sentence


def test_teachers_that_repeat_the_labels_are_to_be_asked_about_more_inputs():
    outcome, cause = diagnose(replace(SMALL_GAIN, entropy=0.045, max_entropy=2.303))
    assert outcome.startswith("The student is not shown to be better than Baseline (accuracy +0.0010")
    assert cause == (
        "The soft targets of the train split hold 0.04 of 2.30 nats: the teachers repeat the labels; ask them about "
        "more inputs: data.transfer, student.augment, student.mixup."
    )


def test_the_sign_of_a_change_is_of_the_improvement_where_smaller_values_are_better():
    facts = replace(HEALTHY, metric="loss", smaller_is_better=True, gain=WORSE, recovered=-0.2)
    assert diagnose(facts)[0].startswith("The student is worse than Baseline (improvement of loss -0.0200, 95% int")


def test_sure_teachers_are_no_cause_where_there_are_more_inputs_already():
    assert not any(
        "repeat the labels" in line for line in diagnose(replace(SMALL_GAIN, entropy=0.04, more_inputs=True))
    )


def test_teachers_no_better_than_the_baseline_have_nothing_to_transfer():
    (sentence,) = diagnose(replace(HEALTHY, gain=UNDECIDED, gap=UNDECIDED, recovered=None, entropy=0.01))
    assert sentence.startswith("Ensemble is not shown to be better than Baseline (accuracy +0.0010, 95% interval")
    assert "nothing to transfer; use larger, more or pre-trained teachers, or distil where labels are few" in sentence


def test_teachers_worse_than_the_baseline_are_to_be_trained_first():
    (sentence,) = diagnose(replace(HEALTHY, gain=WORSE, gap=WORSE, recovered=None))
    assert sentence.startswith("Ensemble is worse than Baseline")


def test_a_gain_without_better_teachers_is_not_called_a_transfer():
    (sentence,) = diagnose(replace(HEALTHY, gap=UNDECIDED, recovered=None))
    assert "Ensemble is not shown to be better than Baseline" in sentence
    assert "pays" not in sentence


def test_a_student_that_knows_its_inputs_by_heart_needs_more_views():
    _, cause = diagnose(replace(SMALL_GAIN, agreement_train=0.998, agreement_eval=0.94))
    assert "on 99.8% of its training inputs and on 94.0% of the eval examples: train it on more views" in cause
    assert len(diagnose(replace(SMALL_GAIN, agreement_train=0.998, agreement_eval=0.98))) == 1


def test_a_student_that_does_not_reach_its_own_targets_is_too_small_or_trained_too_short():
    outcome, cause = diagnose(replace(SMALL_GAIN, gain=WORSE, agreement_train=0.86, temperature=3.0))
    assert outcome.endswith("the soft term harms it.")
    assert "on 86.0% of its own training inputs: it is too small or trained too short" in cause
    assert "lower student.distillation's temperature (now 3) and alpha (now 0.9)" in cause


@pytest.mark.parametrize(
    ("temperature", "remedy"), [(3.0, "temperature (now 3) and alpha"), (1.0, "'s alpha (now 0.9)")]
)
def test_a_student_worse_than_the_baseline_is_harmed_by_the_soft_term(temperature, remedy):
    (sentence,) = diagnose(replace(SMALL_GAIN, gain=WORSE, recovered=None, temperature=temperature))
    assert "The student is worse than Baseline (accuracy -0.0200" in sentence
    assert remedy in sentence


def test_a_soft_term_without_gradient_is_the_cause_and_no_other_is_looked_for():
    idle, outcome = diagnose(replace(SMALL_GAIN, soft_gradient_share=0.004, agreement_train=0.5, entropy=0.0))
    assert idle.startswith("The soft term had 0.40% of the gradient")
    assert outcome.startswith("The student is not shown")


def test_alpha_0_is_meant_and_no_cause():
    assert len(diagnose(replace(SMALL_GAIN, soft_gradient_share=0.0, alpha=0.0))) == 1


def test_constant_targets_are_named():
    assert diagnose(replace(SMALL_GAIN, targets_vary=False))[0].startswith("The teachers predict the same for every")


def test_teachers_that_are_wrong_where_the_baseline_is_right_are_named():
    _, cause = diagnose(replace(SMALL_GAIN, only_reference_right=110, only_baseline_right=90))
    assert (
        "Of the 200 eval examples on which only one of Ensemble and Baseline is right, it is Baseline on 45%" in cause
    )
    assert len(diagnose(replace(SMALL_GAIN, only_reference_right=11, only_baseline_right=9))) == 1  # too few to tell


def test_without_a_baseline_the_causes_are_still_named():
    outcome, cause = diagnose(Facts("accuracy", "Teacher-1", None, entropy=0.01, max_entropy=0.69))
    assert "set evaluation.gates.baseline" in outcome
    assert "repeat the labels" in cause


def test_a_regression_has_an_outcome_without_entropies():
    facts = Facts("mean_absolute_error", "Teacher-1", "Baseline", gain=BETTER, gap=GAP, recovered=0.9)
    assert diagnose(facts)[0].endswith("90% of the gap to Teacher-1: distillation pays.")


def test_no_combination_of_figures_contradicts_itself():
    changes = [BETTER, UNDECIDED, WORSE, None]
    for gain, gap, recovered, entropy, train, evaluated, share, wrong in itertools.product(
        changes, changes, [None, 0.3, 0.9], [0.01, 1.0], [0.8, 0.99], [0.79, 0.9], [0.001, 0.5], [0, 300]
    ):
        facts = replace(
            HEALTHY,
            gain=gain,
            gap=gap,
            recovered=recovered,
            entropy=entropy,
            agreement_train=train,
            agreement_eval=evaluated,
            soft_gradient_share=share,
            only_baseline_right=wrong,
        )
        sentences = diagnose(facts)
        text = " ".join(sentences)
        assert len(sentences) <= MAX_SENTENCES
        assert len(set(sentences)) == len(sentences)
        causes = [
            part for part in ("repeat the labels", "more views", "too small", "labels teach better") if part in text
        ]
        if "distillation pays" in text or "nothing to transfer" in text:
            assert not causes
        if "too small" in text:
            assert "more views" not in text
        if "changed next to nothing" in text:
            assert not causes
            assert "student is better" not in text
        assert ("distillation pays" in text) + ("harms it" in text) + ("nothing to transfer" in text) <= 1


def test_pseudo_labels_are_not_told_to_lower_what_they_fix():
    harmed = replace(SMALL_GAIN, gain=Change(-0.05, -0.08, -0.02), alpha=1.0, temperature=1.0, pseudo_labels=True)
    told = " ".join(diagnose(harmed))
    assert "min_confidence" in told
    assert "lower student.distillation's" not in told


def test_a_student_that_is_to_follow_the_labels_need_not_agree_with_its_teachers():
    apart = replace(SMALL_GAIN, agreement_train=0.7)
    assert any("too small or trained too short" in sentence for sentence in diagnose(apart))
    assert not any("too small or trained too short" in sentence for sentence in diagnose(replace(apart, alpha=0.1)))
