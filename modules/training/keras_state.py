"""Isolates Keras's global state during a training job and restores it afterwards, even after an error."""

from collections.abc import Iterator
from contextlib import contextmanager

import tf_keras as keras


@contextmanager
def state_of_training(seed: int) -> Iterator[None]:
    """Gives a training job its own Keras state: no names taken, seeded, with generators that checkpoints can contain.

    The seeds of Python, NumPy and TensorFlow are not restored, since TensorFlow's cannot be read.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    policy = keras.mixed_precision.global_policy()
    try:
        with random_generators_in_variables(True):
            yield
    finally:
        keras.mixed_precision.set_global_policy(policy)


@contextmanager
def random_generators_in_variables(enabled: bool) -> Iterator[None]:
    """Lets layers that are built in here keep the states of their random generators in variables, or not."""
    before = keras.backend.experimental.is_tf_random_generator_enabled()
    _set_random_generators(enabled)
    try:
        yield
    finally:
        _set_random_generators(before)


def _set_random_generators(enabled: bool) -> None:
    backend = keras.backend.experimental
    (backend.enable_tf_random_generator if enabled else backend.disable_tf_random_generator)()
