import numpy as np
import pytest
import tensorflow as tf

from stillhouse.modules.settings import Optimizer
from stillhouse.modules.training.optimizer import LearningRate, make_optimizer

UPDATES = 20


def rates(**settings):
    schedule = LearningRate(Optimizer(learning_rate=0.4, **settings), UPDATES)
    return np.array([float(schedule(step)) for step in range(UPDATES)])


def test_cosine_falls_from_the_learning_rate_to_the_final_one():
    share = np.arange(UPDATES) / UPDATES
    expected = 0.1 + 0.3 * (1 + np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(rates(schedule="cosine", final_learning_rate=0.1), expected, rtol=1e-5)


def test_exponential_multiplies_by_the_same_factor_in_every_update():
    values = rates(schedule="exponential", final_learning_rate=4.0)
    np.testing.assert_allclose(values[1:] / values[:-1], 10 ** (1 / UPDATES), rtol=1e-5)
    assert values[0] == pytest.approx(0.4)


def test_warm_up_rises_evenly_and_the_schedule_has_the_updates_after_it():
    values = rates(schedule="cosine", warmup=0.2)
    np.testing.assert_allclose(values[:4], 0.4 * np.arange(1, 5) / 5, rtol=1e-5)
    np.testing.assert_allclose(values[4:], 0.2 * (1 + np.cos(np.pi * np.arange(16) / 16)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(rates(warmup=0.2)[4:], 0.4, rtol=1e-6)


def updated(settings: dict, gradients: list) -> list[np.ndarray]:
    variables = [tf.Variable([1.0, 2.0], name="kernel"), tf.Variable([1.0, 2.0], name="bias")]
    optimizer = make_optimizer(Optimizer(name="sgd", learning_rate=0.5, **settings), UPDATES)
    optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
    return [variable.numpy() for variable in variables]


def test_gradients_are_clipped_by_their_norm_together():
    gradients = [[3.0, 0.0], [0.0, 4.0]]  # norm 5
    kernel, bias = updated({"clip_norm": 1.0}, gradients)
    np.testing.assert_allclose(kernel, [1.0 - 0.5 * 3 / 5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(bias, [1.0, 2.0 - 0.5 * 4 / 5], rtol=1e-6)


def test_weights_decay_and_biases_do_not():
    kernel, bias = updated({"weight_decay": 0.1}, [[0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(kernel, [1.0 * 0.95, 2.0 * 0.95], rtol=1e-6)
    np.testing.assert_allclose(bias, [1.0, 2.0])


def test_weights_of_a_layer_decay_whatever_the_name_of_the_layer():
    variables = [tf.Variable(1.0, name="alphabet/embeddings"), tf.Variable(1.0, name="alphabet/beta")]
    optimizer = make_optimizer(Optimizer(name="sgd", learning_rate=0.5, weight_decay=0.1), UPDATES)
    optimizer.apply_gradients([(tf.constant(0.0), variable) for variable in variables])
    np.testing.assert_allclose([variable.numpy() for variable in variables], [0.95, 1.0], rtol=1e-6)


def test_a_schedule_that_lacks_its_end_is_refused():
    with pytest.raises(ValueError, match="schedule: exponential needs one above 0"):
        Optimizer(schedule="exponential")
    with pytest.raises(ValueError, match="not valid with schedule: constant"):
        Optimizer(final_learning_rate=0.1)
