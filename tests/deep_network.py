"""A small network with everything that makes cutting it hard, and its training by Learner."""

from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.cluster.strategies import make_strategy
from stillhouse.modules.distillation.objectives import kl_divergence
from stillhouse.modules.large_models.fitting import examples_passing, prepared
from stillhouse.modules.settings import Memory, Strategy
from stillhouse.modules.training.learner import Distillation, Learner
from stillhouse.modules.training.precision import layers_compute_in, with_loss_scale

CLASSES, EXAMPLES, BATCH = 3, 22, 8  # the last batch has 6, on two replicas 3 each


def soak(*values):
    """Returns a row of parameters for `make soak`: the suite has rows with the same branches."""
    return pytest.param(*values, marks=pytest.mark.soak)


def data():
    random = np.random.RandomState(0)
    return random.normal(size=(EXAMPLES, 4)).astype(np.float32), random.randint(0, CLASSES, EXAMPLES)


def batches_of_replicas(strategy, x, y, size):
    """Returns the batches ((features, labels, targets), waited), without end, each in equal parts for the replicas."""
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(size).repeat()

    def of_replicas(context):
        def parts(x, y):
            size = -(-tf.shape(y)[0] // context.num_replicas_in_sync)
            begins = tf.data.Dataset.range(context.num_replicas_in_sync).map(lambda k: tf.cast(k, tf.int32) * size)
            return begins.map(lambda k: (({"features": x[k : k + size]}, y[k : k + size], {}), 0.0))

        return batches.flat_map(parts)

    return strategy.distribute_datasets_from_function(of_replicas)


def deep(dropout=0.0, norm=False, seed=3):
    """A network with a skip connection, a shared layer, and a regulariser."""
    keras.utils.set_random_seed(seed)
    features = keras.Input([4], name="features")
    shared = keras.layers.Dense(6, activation="tanh", name="shared")
    first = keras.layers.Dense(6, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01), name="first")(
        features
    )
    hidden = shared(first)
    if norm:
        hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.Dropout(dropout, name="dropout")(hidden)
    hidden = keras.layers.Add(name="skip")([shared(hidden), first])
    hidden = keras.layers.Dense(6, activation="tanh", name="late")(hidden)
    return keras.Model(features, keras.layers.Dense(CLASSES, name="logits")(hidden))


def train(
    strategy, build, epochs=2, distillation=None, rate=0.3, pipeline=None, placed=None, precision="float32", **memory
):
    """Returns the weights and the history of a training."""
    x, y = data()
    settings = Memory(**memory)
    dataset = batches_of_replicas(strategy, x, y, BATCH)
    passing = examples_passing(BATCH, strategy, settings)
    keras.backend.experimental.enable_tf_random_generator()
    try:
        with placed or nullcontext(), strategy.scope(), layers_compute_in(precision):
            network = build()
        with strategy.scope():
            learner = Learner(
                network,
                distillation=distillation,
                predict_targets=lambda features: {"logits": tf.stack([features["features"][:, :3]], axis=1)},
                micro_batches=settings.micro_batches,
                prepare_forward=lambda model: prepared(model, settings, passing, "Teacher-1"),
                make_pipeline=pipeline,
            )
            optimizer = keras.optimizers.SGD(rate)
            learner.compile(
                optimizer=with_loss_scale(optimizer, precision),
                steps_per_execution=3,
            )
        history = learner.fit(dataset, epochs=epochs, steps_per_epoch=-(-EXAMPLES // BATCH), verbose=0)
    finally:
        keras.backend.experimental.disable_tf_random_generator()
    return network.get_weights(), history.history


def assert_same(found, expected, rtol=1e-5):
    for ours, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-6)
    for name, values in expected[1].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-5, err_msg=name)


def strategy_of(replicas):
    return make_strategy(Strategy(name="mirrored", devices=replicas) if replicas > 1 else Strategy(name="one_device"))


DISTILLATION = Distillation(kl_divergence, [1.0], "arithmetic", 0.7, 3.0)
