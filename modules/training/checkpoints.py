"""Checkpoints of a training job, and the exact step at which it resumes.

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
from stillhouse.modules.cluster.spec import ClusterSpec, in_step
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Checkpoints as CheckpointSettings

NAME = "checkpoint"


class _Json(tf.train.experimental.PythonState):
    def __init__(self):
        self.value: Any = None

    def serialize(self):
        return json.dumps(self.value)

    def deserialize(self, string_value):
        self.value = json.loads(string_value)


class Checkpoints(keras.callbacks.Callback):
    """Saves a training job when a checkpoint is due, and restores it; a callback of either loop.

    `step` is the number of updates done; `history` has {metric: [value of each finished epoch]}.
    """

    def __init__(
        self,
        learner: keras.Model,
        folder: str | None,
        identity: str,
        steps_per_epoch: int,
        settings: CheckpointSettings,
        cluster: ClusterSpec | None = None,
        settle: Callable[[], None] = lambda: None,
        more_state: dict[str, Any] | None = None,
    ):
        """Finds the newest whole checkpoint in the folder and restores it.

        Args:
          learner: a compiled `stillhouse.modules.training.learner.Learner`.
          folder: of the checkpoints, or None for none; workers share it.
          identity: fingerprint of this training job; checkpoints of others are rejected.
          steps_per_epoch: updates in an epoch.
          settings: updates between checkpoints, rounded up to whole calls of the compiled loop, and how many to keep.
          cluster: the processes that write checkpoints, and which this one is; None: it is alone.
          settle: called before saving; waits until all scheduled updates are done.
          more_state: what a checkpoint has to hold besides, by names that the learner's state does not have.

        Raises:
          UserError: the folder has the checkpoints of another model.
        """
        super().__init__()
        self._learner = learner
        self._folder = folder
        self._steps_per_epoch = steps_per_epoch
        self._every_steps = settings.every_steps
        self._settle = settle
        learner.optimizer.build(learner.learnt)
        self._state = _Json()
        self._checkpoint = tf.train.Checkpoint(**learner.state, **(more_state or {}), state=self._state)
        self.step = 0
        self.history: dict[str, list[float]] = {}
        if folder:
            folders = [os.path.join(folder, name) for name in in_step(cluster)]
            own = os.path.join(folder, cluster.task_name) if cluster and len(folders) > 1 else folders[0]
            self._restore(identity, own, folders)
            self._manager = tf.train.CheckpointManager(
                self._checkpoint, own, max_to_keep=settings.keep, checkpoint_name=NAME
            )
        self._identity = identity
        self._saved = self.step
        self._first_of_run = self.step
        self._means = learner.means.value_of() if self.step % steps_per_epoch else None

    def _restore(self, identity: str, own: str, folders: list[str]) -> None:
        steps = set.intersection(*(_steps_in(folder) for folder in folders))
        for step in sorted(steps, reverse=True):
            paths = [os.path.join(folder, f"{NAME}-{step}") for folder in folders]
            faults = {path: fault for path in paths if (fault := _fault_of(path))}
            if faults:
                path, fault = next(iter(faults.items()))
                progress.note(f"checkpoint {path} is corrupt ({fault}); using the previous one")
                continue
            path = os.path.join(own, f"{NAME}-{step}")
            mismatch = UserError(
                f"{self._folder}: its checkpoints belong to another model or training job; remove the folder"
            )
            try:
                status = self._checkpoint.read(path)
                status.assert_existing_objects_matched()
            except (AssertionError, ValueError, tf.errors.InvalidArgumentError) as error:
                raise mismatch from error
            state = self._state.value
            if state["of"] != identity:
                raise mismatch
            self.step, self.history = state["step"], state["history"]
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
        self._state.value = {"of": self._identity, "step": self.step, "history": self.history}
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
    steps = set()
    for index in tf.io.gfile.glob(os.path.join(folder, f"{NAME}-*.index")):
        step = re.fullmatch(rf"{NAME}-(\d+)\.index", os.path.basename(index))
        if step:
            steps.add(int(step[1]))
    return steps


def _fault_of(path: str) -> str | None:
    """Returns the fault in a checkpoint's files, whose checksums are verified by reading them; None: no fault."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # The reader raises plain exceptions too, of types that TensorFlow does not document.
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError, OSError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None
