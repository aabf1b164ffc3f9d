"""Which unlabelled examples are taken, and what their targets are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.modules.distillation.pseudo_labels import certain_logits, confidence_of, copies_of, pseudo_logits
from stillhouse.modules.errors import UserError


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_confidence_is_the_largest_probability():
    logits = np.random.RandomState(0).normal(scale=3, size=(50, 4)).astype(np.float32)
    np.testing.assert_allclose(confidence_of(logits), softmax(logits).max(axis=-1), rtol=1e-5)


def test_a_certain_class_has_all_of_the_probability():
    np.testing.assert_allclose(softmax(certain_logits(np.array([2, 0]), 3)), [[0, 0, 1], [1, 0, 0]], atol=1e-12)


def test_soft_labels_are_the_teachers_and_hard_ones_its_likeliest_class():
    logits = np.array([[0.1, 2.0, -1.0], [3.0, 2.9, 0.0]], np.float32)
    assert pseudo_logits(logits, "soft") is logits
    np.testing.assert_allclose(softmax(pseudo_logits(logits, "hard")), [[0, 1, 0], [1, 0, 0]], atol=1e-12)


def test_examples_of_which_the_teacher_is_not_sure_are_left_out():
    confidence, classes = np.array([0.2, 0.5, 0.9, 0.49]), np.array([0, 0, 1, 1])
    assert copies_of(confidence, classes, min_confidence=0.5, balance=False).tolist() == [0, 1, 1, 0]
    with pytest.raises(UserError, match=r"min_confidence: found 0.95; expected at most 0.900 \(highest confidence\)"):
        copies_of(confidence, classes, min_confidence=0.95, balance=False)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=60).filter(
        lambda rows: any(row[0] >= 0.3 for row in rows)
    )
)
def test_balanced_classes_have_as_many_examples_each_the_surest_first(rows):
    confidence, classes = (np.array(of) for of in zip(*rows, strict=True))
    copies = copies_of(confidence, classes, min_confidence=0.3, balance=True)
    kept = confidence >= 0.3
    assert not copies[~kept].any()
    present = np.unique(classes[kept])
    totals = [copies[classes == one].sum() for one in present]
    assert len(set(totals)) == 1
    assert abs(sum(totals) - kept.sum()) <= len(present) / 2 + 1
    for one in present:
        own = kept & (classes == one)
        if (copies[own] == 0).any():  # more than are wanted: none that is left out is surer than one that is taken
            assert confidence[own & (copies == 0)].max() <= confidence[own & (copies > 0)].min()
            assert copies[own].max() == 1
