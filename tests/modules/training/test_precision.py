"""Mixed precision, in one piece, in parts, and in stages."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from deep_network import deep, soak, strategy_of, train

from stillhouse.modules.cluster.strategies import local_devices
from stillhouse.modules.large_models.parallelism import plan_stages
from stillhouse.modules.large_models.pipeline import Pipeline
from stillhouse.modules.settings import Parallelism
from stillhouse.modules.training.learner import Learner
from stillhouse.modules.training.precision import FLOAT16, layers_compute_in, with_loss_scale

BFLOAT16 = "mixed_bfloat16"


def assert_close(found, expected, rtol):
    """As far as 16 bits go."""
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)


@pytest.fixture(scope="module")
def in_full():
    return train(strategy_of(1), deep)


@pytest.mark.parametrize(
    ("precision", "replicas", "memory"),
    [
        (BFLOAT16, 1, {}),
        (BFLOAT16, 2, {"micro_batches": 2, "rematerialise": "auto"}),
        (FLOAT16, 1, {"rematerialise": ["shared"]}),
        soak(FLOAT16, 2, {"micro_batches": 2}),
    ],
)
def test_weights_are_those_of_float32_as_far_as_16_bits_go(in_full, precision, replicas, memory):
    assert_close(train(strategy_of(replicas), deep, precision=precision, **memory), in_full, 0.03)


@pytest.mark.parametrize("precision", [BFLOAT16, soak(FLOAT16)])
def test_stages_do_as_micro_batches_do(in_full, precision):
    devices = [["CPU:0", "CPU:1"]]

    def pipeline(network):
        return Pipeline(network, [3], devices, 2, "1f1b", rematerialise=True)

    found = train(strategy_of(1), deep, precision=precision, pipeline=pipeline)
    assert_close(found, train(strategy_of(1), deep, precision=precision, micro_batches=2), 1e-3)
    assert_close(found, in_full, 0.03)


def test_the_weights_of_a_stage_are_made_on_its_device():
    def build():
        with layers_compute_in(BFLOAT16):
            return deep()

    stages = plan_stages(build, Parallelism(stages=2, balance=[3, 4]), 2, 8, [local_devices(2)], "Teacher-1")
    with stages.variables_on_stages(), strategy_of(1).scope():
        network = build()
    of = {weight.name.partition("/")[0]: weight.device[-5:] for weight in network.weights}
    assert of == {"first": "CPU:0", "shared": "CPU:0", "late": "CPU:1", "logits": "CPU:1"}


def one_step(precision, scale_of_input):
    """Returns what a step of SGD changes in a weight whose gradient in float16 is below its smallest number."""
    keras.utils.set_random_seed(1)
    with layers_compute_in(precision):
        features = keras.Input([4], name="features")
        network = keras.Model(features, keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")(features))
    learner = Learner(network)
    learner.compile(optimizer=with_loss_scale(keras.optimizers.SGD(1.0), precision))
    x = tf.random.stateless_normal([8, 4], [1, 2]) * scale_of_input
    before = network.get_weights()[0]
    learner.train_step((({"features": x}, tf.constant([0, 1] * 4, tf.int64), {}), tf.constant(0.0)))
    return network.get_weights()[0] - before, learner


def test_small_gradients_are_not_lost_in_float16():
    with_more_bits, _ = one_step("float32", 1e-6)
    found, _ = one_step(FLOAT16, 1e-6)
    least = 2**-24  # that float16 has
    expected = with_more_bits[np.abs(with_more_bits) < least]
    assert len(expected)
    np.testing.assert_allclose(found[np.abs(with_more_bits) < least], expected, rtol=0.1, atol=0.05 * least)
    assert np.all(found)


def test_an_update_with_infinite_gradients_is_left_out_and_the_scale_halved():
    """float16 ends at 65504."""
    changed, learner = one_step(FLOAT16, 60_000.0)
    assert np.all(changed == 0)
    assert float(learner.optimizer.loss_scale) == learner.optimizer.initial_scale / 2
