"""Checkpoints of a training, and the exact place where it goes on.

A checkpoint is named by the number of updates done. It holds the weights, the optimiser, the states of random
generators (dropout), the running means of the epoch and the history so far. The input needs no state: its order is a
function of the seed, and `stillhouse.modules.ingestion.record_batches` starts at any step.

Workers that train in step write one each, because their random generators differ; they all go on from the newest step
of which all checkpoints are whole.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.cluster.strategies import in_step, task_name, tf_config
from stillhouse.modules.errors import UserError

NAME = "checkpoint"


class _Json(tf.train.experimental.PythonState):
    def __init__(self):
        self.value: Any = None

    def serialize(self):
        return json.dumps(self.value)

    def deserialize(self, string_value):
        self.value = json.loads(string_value)


class Checkpoints(keras.callbacks.Callback):
    """Saves a training between its epochs, if it is time, and restores it; a callback of either loop.

    `step` is the number of updates done; `history` has {metric: [value of each finished epoch]}.
    """

    def __init__(
        self,
        learner: keras.Model,
        folder: str | None,
        of_what: str,
        steps_per_epoch: int,
        every_steps: int,
        keep: int,
        settle: Callable[[], None] = lambda: None,
    ):
        """Finds the newest whole checkpoint in the folder and restores it.

        Args:
          learner: a compiled `stillhouse.modules.training.learner.Learner`.
          folder: of the checkpoints, or None for none; workers share it.
          of_what: tells this training from others, whose checkpoints are refused.
          steps_per_epoch: updates in an epoch.
          every_steps: updates between checkpoints, rounded up to whole calls of the compiled loop.
          keep: checkpoints to keep.
          settle: called before saving; waits until all scheduled updates are done.

        Raises:
          UserError: the folder has the checkpoints of another model.
        """
        super().__init__()
        self._learner = learner
        self._folder = folder
        self._steps_per_epoch = steps_per_epoch
        self._every_steps = every_steps
        self._settle = settle
        learner.optimizer.build(learner.learnt)
        self._state = _Json()
        self._checkpoint = tf.train.Checkpoint(**learner.state, state=self._state)
        self.step = 0
        self.history: dict[str, list[float]] = {}
        if folder:
            cluster = tf_config()
            folders = [os.path.join(folder, name) for name in in_step(cluster)]
            own = os.path.join(folder, task_name(cluster)) if len(folders) > 1 else folders[0]
            self._restore(of_what, own, folders)
            self._manager = tf.train.CheckpointManager(self._checkpoint, own, max_to_keep=keep, checkpoint_name=NAME)
        self._of_what = of_what
        self._saved = self.step
        self._first_of_run = self.step
        self._means = learner.means.value_of() if self.step % steps_per_epoch else None

    def _restore(self, of_what: str, own: str, folders: list[str]) -> None:
        steps = set.intersection(*(_steps_in(folder) for folder in folders))
        for step in sorted(steps, reverse=True):
            paths = [os.path.join(folder, f"{NAME}-{step}") for folder in folders]
            faults = {path: fault for path in paths if (fault := _fault_of(path))}
            if faults:
                path, fault = next(iter(faults.items()))
                progress.note(f"checkpoint {path} is damaged ({fault}); taking the one before")
                continue
            path = os.path.join(own, f"{NAME}-{step}")
            other = UserError(
                f"{self._folder}: the checkpoints there are of another model or training; remove the folder"
            )
            try:
                status = self._checkpoint.read(path)
                status.assert_existing_objects_matched()
            except (AssertionError, ValueError, tf.errors.InvalidArgumentError) as error:
                raise other from error
            found = self._state.value
            if found["of"] != of_what:
                raise other
            self.step, self.history = found["step"], found["history"]
            return

    def on_epoch_begin(self, epoch, logs=None):
        """Keras has reset the running means; those of a resumed epoch are put back."""
        self._epoch_began = max(epoch * self._steps_per_epoch, self._first_of_run)
        if self._means is not None:
            self._learner.means.assign(self._means)
            self._means = None

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch to the history, and saves if it is time."""
        self.step = (epoch + 1) * self._steps_per_epoch
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self._is_due():
            self.save()

    def _is_due(self) -> bool:
        return self._folder is not None and self.step - self._saved >= self._every_steps

    def save(self) -> None:
        """Writes a checkpoint of this moment."""
        self._settle()
        self._state.value = {"of": self._of_what, "step": self.step, "history": self.history}
        self._manager.save(checkpoint_number=self.step)
        self._saved = self.step


class StepCheckpoints(Checkpoints):
    """Saves within epochs too. Keras fit with a parameter server takes no callback that does."""

    def on_train_batch_end(self, batch, logs=None):
        """Saves if it is time; `batch` counts from where the epoch was begun or resumed in this run."""
        self.step = self._epoch_began + batch + 1
        if self._is_due() and self.step % self._steps_per_epoch:
            self.save()


def _steps_in(folder: str) -> set[int]:
    found = set()
    for index in tf.io.gfile.glob(os.path.join(folder, f"{NAME}-*.index")):
        step = re.fullmatch(rf"{NAME}-(\d+)\.index", os.path.basename(index))
        if step:
            found.add(int(step[1]))
    return found


def _fault_of(path: str) -> str | None:
    """Returns what is wrong with the files of a checkpoint, whose checksums are verified by reading them."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # The reader raises plain exceptions too, of types that TensorFlow does not document.
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError, OSError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None
