"""Keras fit ends more than once where a training job resumes within an epoch; its weights have to survive that."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.settings import Optimizer
from stillhouse.modules.training.learner import Learner
from stillhouse.modules.training.loop import Steps, run_fit
from stillhouse.modules.training.optimizer import make_optimizer

PER_EPOCH, EPOCHS, STOPPED = 4, 2, 2
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=[PER_EPOCH * EPOCHS, 8, 3]).astype(np.float32)
LABELS = RANDOM.integers(0, 2, size=[PER_EPOCH * EPOCHS, 8])


def batches_from(step):
    def batch(inputs, labels):
        return ({"x": inputs}, labels, {}), tf.zeros([])

    return lambda context: tf.data.Dataset.from_tensor_slices((INPUTS[step:], LABELS[step:])).map(batch)


def new_learner():
    keras.utils.set_random_seed(1)
    inputs = keras.Input([3], name="x")
    learner = Learner(keras.Model({"x": inputs}, keras.layers.Dense(2)(inputs)))
    learner.compile(optimizer=make_optimizer(Optimizer(learning_rate=0.1, average=0.9), PER_EPOCH * EPOCHS))
    learner.optimizer.build(learner.learnt)
    return learner


def fitted(learner, first):
    strategy = tf.distribute.OneDeviceStrategy("/CPU:0")
    run_fit(Steps(learner, strategy, batches_from, first, PER_EPOCH, 1, EPOCHS, callbacks=[]))
    return [variable.numpy() for variable in learner.optimizer.variables]  # the averages are among them


def test_a_fit_resumed_within_an_epoch_goes_on_with_its_weights_and_not_their_average():
    expected = fitted(new_learner(), first=0)
    resumed = new_learner()
    for batch in batches_from(0)(None).take(STOPPED):
        resumed.update(batch)
    for ours, theirs in zip(fitted(resumed, first=STOPPED), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
