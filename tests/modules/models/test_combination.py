import numpy as np
import pytest
import tensorflow as tf
from numpy_reference import logits, sigmoid, softmax

from stillhouse.modules.models.combination import combine

WEIGHTS = [1.0, 3.0, 2.0]
STACKED = np.stack([logits(seed) for seed in range(3)], axis=1)  # [rows, teachers, classes]
SHARES = (np.array(WEIGHTS) / sum(WEIGHTS))[None, :, None]


def combined(temperature, combination, head, stacked=STACKED, weights=WEIGHTS):
    return combine(tf.constant(stacked), weights, temperature, combination, head).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_arithmetic_is_the_mean_of_softened_distributions(temperature):
    expected = (SHARES * softmax(STACKED / temperature)).sum(1)
    found = combined(temperature, "arithmetic", "classification")
    np.testing.assert_allclose(softmax(found / temperature), expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
@pytest.mark.parametrize("combination", ["geometric", "logits"])
def test_geometric_is_the_normalised_geometric_mean_and_so_is_the_mean_of_logits(temperature, combination):
    product = np.prod(softmax(STACKED / temperature) ** SHARES, axis=1)
    found = combined(temperature, combination, "classification")
    np.testing.assert_allclose(softmax(found / temperature), product / product.sum(-1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(found, (SHARES * STACKED).sum(1), rtol=1e-5)


def test_multi_label_arithmetic_is_the_mean_of_sigmoids():
    expected = (SHARES * sigmoid(STACKED / 2.0)).sum(1)
    np.testing.assert_allclose(sigmoid(combined(2.0, "arithmetic", "multi_label") / 2.0), expected, rtol=1e-4)


def test_numbers_are_averaged():
    expected = (SHARES * STACKED).sum(1)
    np.testing.assert_allclose(combined(2.0, "arithmetic", "regression"), expected, rtol=1e-5)


@pytest.mark.parametrize("head", ["classification", "multi_label", "regression"])
def test_equal_teachers_give_their_own_logits_back(head):
    same = np.repeat(logits(0)[:, None], 3, axis=1)
    np.testing.assert_allclose(combined(3.0, "arithmetic", head, same), logits(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(combined(3.0, "arithmetic", head, same[:, :1], [2.0]), logits(0))


def test_extreme_logits_stay_finite():
    extreme = np.array([[[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]], np.float32)
    for head in ("classification", "multi_label"):
        assert np.isfinite(combined(0.01, "arithmetic", head, extreme, [1.0, 1.0])).all()
