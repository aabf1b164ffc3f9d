"""The two loops: Keras fit, and our own around strategy.run or a ClusterCoordinator. Both take the same callbacks."""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras as keras

from modules.learner import Learner

# From the first step to the batches of one input pipeline.
DatasetFunction = Callable[[int], Callable[[tf.distribute.InputContext], tf.data.Dataset]]


def run_fit(
    learner: Learner,
    strategy: tf.distribute.Strategy,
    datasets: DatasetFunction,
    first_step: int,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains by Keras fit, from `first_step` to the end of `epochs`."""
    done, within = divmod(first_step, steps_per_epoch)
    # The rest of an epoch that was begun is a fit of its own, for Keras has no other way to a shorter epoch.
    parts = [(done, done + 1, steps_per_epoch - within)] if within else []
    parts.append((done + len(parts), epochs, steps_per_epoch))
    step = first_step
    for begin, end, steps in parts:
        if begin >= epochs:
            return
        learner.fit(
            _distributed(strategy, datasets(step)),
            initial_epoch=begin,
            epochs=end,
            steps_per_epoch=steps,
            verbose=0,
            callbacks=list(callbacks),
        )
        step += (end - begin) * steps


def run_custom(
    learner: Learner,
    strategy: tf.distribute.Strategy,
    datasets: DatasetFunction,
    first_step: int,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
    steps_per_call: int,
) -> None:
    """Trains by a loop of our own, from `first_step` to the end of `epochs`.

    Args:
      steps_per_call: updates in a call of the compiled loop.
    """
    told = keras.callbacks.CallbackList(list(callbacks), model=learner)
    call, settle = _calls(learner, strategy, _distributed(strategy, datasets(first_step)))
    done, within = divmod(first_step, steps_per_epoch)
    told.on_train_begin()
    for epoch in range(done, epochs):
        learner.means.reset_state()
        told.on_epoch_begin(epoch)
        left = steps_per_epoch - within
        batch = 0
        while batch < left:
            steps = min(steps_per_call, left - batch)
            told.on_train_batch_begin(batch)
            call(steps)
            batch += steps
            told.on_train_batch_end(batch - 1)
        within = 0
        settle()
        told.on_epoch_end(epoch, {name: float(value) for name, value in learner.means.result().items()})
    told.on_train_end()


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


def is_asynchronous(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether replicas update the variables each in its own time."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)
