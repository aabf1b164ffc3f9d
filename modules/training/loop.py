"""The two loops: Keras fit, and our own around strategy.run or a ClusterCoordinator. Both take the same callbacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.cluster.strategies import is_asynchronous
from stillhouse.modules.training.learner import Learner

# From the first step to the batches of one input pipeline.
DatasetFunction = Callable[[int], Callable[[tf.distribute.InputContext], tf.data.Dataset]]


@dataclass(frozen=True)
class Steps:
    """The updates of a training job, and the objects that they need."""

    learner: Learner  # compiled under `strategy`
    strategy: tf.distribute.Strategy
    datasets: DatasetFunction
    first: int  # the number of updates that are done already
    per_epoch: int
    per_call: int  # of the compiled loop
    epochs: int
    callbacks: Sequence[keras.callbacks.Callback]


class _OwnWeights(keras.callbacks.Callback):
    """Keeps the weights of a fit that is not the last: at its end Keras puts their moving average in their place."""

    def on_epoch_end(self, epoch, logs=None):
        self._trained = keras.backend.batch_get_value(self.model.learnt)

    def on_train_end(self, logs=None):
        keras.backend.batch_set_value(list(zip(self.model.learnt, self._trained, strict=True)))


def run_fit(steps: Steps) -> None:
    """Trains by Keras fit, from the first step to the end of the last epoch."""
    first_epoch, within = divmod(steps.first, steps.per_epoch)
    # The rest of an interrupted epoch is a separate fit, Keras's only way to a shorter epoch.
    parts = [(first_epoch, first_epoch + 1, steps.per_epoch - within)] if within else []
    parts.append((first_epoch + len(parts), steps.epochs, steps.per_epoch))
    step = steps.first
    for begin, end, of_epoch in parts:
        if begin >= steps.epochs:
            return
        goes_on = end < steps.epochs and steps.learner.optimizer.use_ema
        steps.learner.fit(
            _distributed(steps.strategy, steps.datasets(step)),
            initial_epoch=begin,
            epochs=end,
            steps_per_epoch=of_epoch,
            verbose=0,
            callbacks=[*steps.callbacks, *([_OwnWeights()] if goes_on else [])],
        )
        if steps.learner.stop_training:
            return
        step += (end - begin) * of_epoch


def run_custom(steps: Steps) -> None:
    """Trains by a loop of our own, from the first step to the end of the last epoch."""
    learner = steps.learner
    callbacks = keras.callbacks.CallbackList(list(steps.callbacks), model=learner)
    call, settle = _calls(learner, steps.strategy, _distributed(steps.strategy, steps.datasets(steps.first)))
    first_epoch, within = divmod(steps.first, steps.per_epoch)
    callbacks.on_train_begin()
    for epoch in range(first_epoch, steps.epochs):
        learner.means.reset_state()
        callbacks.on_epoch_begin(epoch)
        left = steps.per_epoch - within
        batch = 0
        while batch < left:
            count = min(steps.per_call, left - batch)
            callbacks.on_train_batch_begin(batch)
            call(count)
            batch += count
            callbacks.on_train_batch_end(batch - 1)
        within = 0
        settle()
        callbacks.on_epoch_end(epoch, {name: float(value) for name, value in learner.means.result().items()})
        if learner.stop_training:
            break
    callbacks.on_train_end()


def _distributed(strategy: tf.distribute.Strategy, function):
    if is_asynchronous(strategy):
        return keras.utils.experimental.DatasetCreator(function)
    return strategy.distribute_datasets_from_function(function)


def _calls(learner: Learner, strategy: tf.distribute.Strategy, dataset) -> tuple[Callable, Callable]:
    """Returns a function that does a number of updates, and one that waits until all of them are done."""

    def run_steps(iterator, steps):
        for _ in tf.range(steps):
            strategy.run(learner.update, args=(next(iterator),))

    if is_asynchronous(strategy):
        compiled = tf.function(run_steps)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        iterator = iter(
            coordinator.create_per_worker_dataset(lambda: strategy.distribute_datasets_from_function(dataset))
        )
        return lambda steps: coordinator.schedule(compiled, args=(iterator, tf.constant(steps))), coordinator.join
    iterator = iter(dataset)
    compiled = tf.function(run_steps)
    return lambda steps: compiled(iterator, tf.constant(steps)), lambda: None
