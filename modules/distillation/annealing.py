"""Alpha and temperature over the epochs."""

import math

import tf_keras as keras

from stillhouse.modules.settings import Schedule


def value_at(schedule: Schedule, epoch: int, epochs: int) -> float:
    """Returns the value in `epoch` (from 0) of a schedule over `epochs`.

    The first epoch has `start`, the last one `end`.
    """
    fraction = epoch / (epochs - 1) if epochs > 1 else 0.0
    if schedule.schedule == "cosine":
        fraction = (1 - math.cos(math.pi * fraction)) / 2
    return schedule.start + (schedule.end - schedule.start) * fraction


class Annealing(keras.callbacks.Callback):
    """Sets the learner's alpha and temperature before each epoch and records them in the history."""

    def __init__(self, alpha: Schedule, temperature: Schedule, epochs: int):
        super().__init__()
        self._schedules = {"alpha": alpha, "temperature": temperature}
        self._epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        """Assigns the epoch's values."""
        for name, schedule in self._schedules.items():
            getattr(self.model, name).assign(value_at(schedule, epoch, self._epochs))

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's values to the logs."""
        for name, schedule in self._schedules.items():
            logs[name] = value_at(schedule, epoch, self._epochs)
