"""Teachers of a student: exported SavedModels that predict logits and hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.heads import HEADS, Head

LOGITS_SIGNATURE = "logits"
HIDDEN_SIGNATURE = "hidden_states"
# Names of targets, the teachers' predictions on a batch, online or cached.
LOGITS = "logits"  # [batch, teachers, outputs]
HIDDEN = "hidden/"  # prefix of hidden states: hidden/TEACHER/LAYER, [batch, ...]

# Tolerance for the sum of a half-precision softmax.
SUMS_TO_ONE = 2e-3
# One or two rows of logits may look like probabilities by accident, this many do not.
ROWS_TO_TELL = 16


class Teacher:
    """A SavedModel on transformed features, as `modules.models.export` writes it; calling it returns its logits.

    Load it inside the scope of the strategy that runs it.
    """

    def __init__(self, path: str, name: str, head: Head = HEADS["classification"]):
        """Loads the SavedModel at `path`.

        Raises:
          UserError: the path has no SavedModel, or the model has no signature `logits` over transformed features.
        """
        self.name = name
        self._head = head
        try:
            self.saved_model = saved_models.load(path)
        except OSError as error:
            raise UserError(f"{name}: no SavedModel in {path}: {error}") from error
        if LOGITS_SIGNATURE not in self.saved_model.signatures:
            raise UserError(
                f"{name}: signatures of {path}: found {', '.join(sorted(self.saved_model.signatures)) or 'none'}; "
                f"expected {LOGITS_SIGNATURE!r} (transformed features to logits)"
            )
        self._signature = self.saved_model.signatures[LOGITS_SIGNATURE]
        self._hidden = self.saved_model.signatures.get(HIDDEN_SIGNATURE)
        self._inputs = list(self._signature.structured_input_signature[1])

    @property
    def outputs(self) -> int:
        """Number of columns of the logits: classes, labels, or 1."""
        return self._head.width(self._signature.structured_outputs["logits"].shape[-1])

    def hidden_shapes(self) -> dict[str, list[int]]:
        """Returns the shape, without the batch, of each exported hidden state, by layer."""
        if self._hidden is None:
            return {}
        return {name: list(output.shape[1:]) for name, output in self._hidden.structured_outputs.items()}

    def __call__(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns logits, float32 [batch, outputs], of transformed features {name: [batch, ...]}."""
        return self._head.logits(self._signature(**{name: features[name] for name in self._inputs})["logits"])

    def hidden_states(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the hidden states {layer: float32 [batch, ...]} of transformed features."""
        states = self._hidden(**{name: features[name] for name in self._inputs})
        return {name: tf.cast(state, tf.float32) for name, state in states.items()}


def load_teachers(paths: Sequence[str], head: Head) -> list[Teacher]:
    """Loads the SavedModels of teachers, named Teacher-1, Teacher-2, ... in their order.

    Teachers loaded in the scope of a strategy can be called only by its replicas.
    """
    return [Teacher(path, f"Teacher-{number}", head) for number, path in enumerate(paths, start=1)]


def predict_targets(teachers: Sequence[Teacher], features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the teachers' predictions on transformed features, by the names of cached soft targets.

    logits: float32 [batch, teachers, outputs]; hidden/N/LAYER: float32 [batch, ...], for exported hidden layers.
    """
    targets = {LOGITS: tf.stack([teacher(features) for teacher in teachers], axis=1)}
    for number, teacher in enumerate(teachers, start=1):
        if teacher.hidden_shapes():
            states = teacher.hidden_states(features)
            targets |= {f"{HIDDEN}{number}/{layer}": state for layer, state in states.items()}
    return targets


def target_shapes(teachers: Sequence[Teacher]) -> dict[str, list[int]]:
    """Returns the shape, without the batch, of each of the `predict_targets`."""
    shapes = {LOGITS: [len(teachers), teachers[0].outputs]}
    for number, teacher in enumerate(teachers, start=1):
        shapes |= {f"{HIDDEN}{number}/{layer}": shape for layer, shape in teacher.hidden_shapes().items()}
    return shapes


def check_widths(widths: dict[str, int], student: int) -> None:
    """Checks that every teacher has as many outputs as the student.

    Raises:
      UserError: a teacher has another number; the message has the numbers of all models.
    """
    if any(width != student for width in widths.values()):
        teacher_widths = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise UserError(
            f"the numbers of outputs (classes) differ: {teacher_widths}, the student {student}; build all models with "
            "the same number"
        )


@dataclass
class Faults:
    """Faults in teachers' logits, counted by teacher over any number of batches."""

    names: list[str]
    head: Head
    examples: int = 0
    broken: np.ndarray = field(init=False)  # NaN or infinite
    probabilities: np.ndarray = field(init=False)  # no output negative, sum 1

    def __post_init__(self):
        self.broken = np.zeros(len(self.names), np.int64)
        self.probabilities = np.zeros(len(self.names), np.int64)

    def count(self, logits: np.ndarray) -> None:
        """Counts a batch of logits [examples, teachers, outputs]."""
        self.examples += len(logits)
        self.broken += (~np.isfinite(logits)).any(axis=-1).sum(axis=0)
        if self.head.name == "classification":
            self.probabilities += are_probabilities(logits).sum(axis=0)

    def refuse(self) -> None:
        """Raises UserError if a teacher predicted NaN or infinite logits, or only probabilities."""
        for name, broken, probabilities in zip(self.names, self.broken, self.probabilities, strict=True):
            if broken:
                raise UserError(
                    f"{name}: logits are NaN or infinite for {broken} of {self.examples} examples; check its training "
                    "loss, and the features that preprocessing_fn returns for NaN"
                )
            if probabilities == self.examples >= ROWS_TO_TELL:
                raise UserError(
                    f"{name}: found probabilities (no negative output, each row sums to 1); expected logits; remove "
                    "the softmax from its last layer, or, for teachers[].saved_model, set outputs: probabilities"
                )


def are_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns bool [...]: whether each row of [..., classes] is a distribution: not negative, with the sum 1."""
    with np.errstate(invalid="ignore"):
        return np.all(outputs >= 0, axis=-1) & (np.abs(outputs.sum(axis=-1) - 1) < SUMS_TO_ONE)
