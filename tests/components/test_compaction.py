"""What compact logits change, against plain sums."""

import math

import numpy as np
import pytest

from stillhouse.components.soft_targets.compaction import changes, pack
from stillhouse.modules.models.heads import HEADS


def softmax(row):
    exponentials = [math.exp(x) for x in row]
    return [x / sum(exponentials) for x in exponentials]


def test_the_loss_is_the_divergence_of_the_teachers_mean_distributions():
    random = np.random.default_rng(0)
    exact = random.normal(size=[30, 3, 5]).astype(np.float32)
    rebuilt = (exact + random.normal(size=exact.shape) * 0.5).astype(np.float32)
    agreeing, divergence = changes(exact, rebuilt, HEADS["classification"])
    for example in range(len(exact)):
        p, q = (np.mean([softmax(row) for row in logits[example].tolist()], axis=0) for logits in (exact, rebuilt))
        assert divergence[example] == pytest.approx(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        assert agreeing[example] == (np.argmax(p) == np.argmax(q))
    assert 0 < agreeing.sum() < len(agreeing)


def test_several_labels_agree_if_all_do_and_their_divergences_add_up():
    exact = np.array([[[1.0, -2.0, 0.5]], [[3.0, 0.1, -1.0]]], np.float32)
    rebuilt = np.array([[[1.5, -2.0, 0.25]], [[3.0, -0.1, -1.0]]], np.float32)
    agreeing, divergence = changes(exact, rebuilt, HEADS["multi_label"])
    assert agreeing.tolist() == [True, False]
    for example in range(2):
        p, q = (1 / (1 + np.exp(-logits[example, 0].astype(float))) for logits in (exact, rebuilt))
        expected = np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        assert divergence[example] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_logits_that_are_no_numbers_are_packed_for_the_check_that_refuses_them(dtype):
    """Beam's counters take integers, and a NaN is none."""
    logits = np.ones([3, 1, 4], np.float32)
    logits[0, 0, 0], logits[1, 0, 1] = np.nan, np.inf
    top = 2 if dtype == "float32" else None
    assert len(pack("logits", logits, dtype, top, HEADS["classification"])) == 3
