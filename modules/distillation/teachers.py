"""Teachers that a student learns from: exported SavedModels, asked for logits and hidden states."""

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from modules import saved_models
from modules.errors import UserError
from modules.heads import HEADS, Head

LOGITS_SIGNATURE = "logits"
HIDDEN_SIGNATURE = "hidden_states"

# Outputs of a half-precision softmax sum to one only so well.
SUMS_TO_ONE = 2e-3
# One or two rows of logits may look like that by accident, so many do not.
ROWS_TO_TELL = 16


class Teacher:
    """A SavedModel on transformed features, as `modules.export` writes it; calling it gives its logits.

    Load it inside the scope of the strategy that it will run under.
    """

    def __init__(self, path: str, name: str, head: Head = HEADS["classification"]):
        """Loads the SavedModel at `path`.

        Raises:
          UserError: there is no SavedModel, or it has no signature `logits` over transformed features.
        """
        self.name = name
        self._head = head
        try:
            self.saved_model = saved_models.load(path)
        except OSError as error:
            raise UserError(f"{name}: no SavedModel in {path}: {error}") from error
        if LOGITS_SIGNATURE not in self.saved_model.signatures:
            raise UserError(
                f"{name}: the SavedModel in {path} has no signature {LOGITS_SIGNATURE!r} (transformed features to "
                f"logits); it has: {', '.join(sorted(self.saved_model.signatures)) or 'none'}"
            )
        self._signature = self.saved_model.signatures[LOGITS_SIGNATURE]
        self._hidden = self.saved_model.signatures.get(HIDDEN_SIGNATURE)
        self._inputs = list(self._signature.structured_input_signature[1])

    @property
    def outputs(self) -> int:
        """Number of columns of its logits: classes, labels, or 1."""
        return self._head.width(self._signature.structured_outputs["logits"].shape[-1])

    def hidden_shapes(self) -> dict[str, list[int]]:
        """Returns the shape, without the batch, of each hidden state that it was exported with, by layer."""
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


def check_widths(widths: dict[str, int], student: int) -> None:
    """Checks that every teacher has as many outputs as the student.

    Raises:
      UserError: one has not; all are named with what they have.
    """
    if any(width != student for width in widths.values()):
        found = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise UserError(f"the outputs (classes) of teachers and student differ: {found}, the student {student}")


@dataclass
class Faults:
    """What is wrong with teachers' logits, counted by teacher over any number of batches."""

    names: list[str]
    head: Head
    examples: int = 0
    broken: np.ndarray = field(init=False)  # NaN or infinite
    probabilities: np.ndarray = field(init=False)  # no output is negative, and they sum to 1

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
        """Raises UserError if a teacher gave NaN or infinite logits, or nothing but probabilities."""
        for name, broken, probabilities in zip(self.names, self.broken, self.probabilities, strict=True):
            if broken:
                raise UserError(
                    f"{name}: its logits are NaN or infinite for {broken} of {self.examples} examples; look at its "
                    "training loss, and for NaN in the features that preprocessing_fn returns"
                )
            if probabilities == self.examples >= ROWS_TO_TELL:
                raise UserError(
                    f"{name}: gives probabilities (no output is negative, each row sums to 1) where logits are "
                    "expected; drop the softmax from its last layer, or, for teachers[].saved_model, set "
                    "outputs: probabilities"
                )


def are_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns bool [...]: which rows of [..., classes] are distributions: nowhere negative, summing to 1."""
    with np.errstate(invalid="ignore"):
        return np.all(outputs >= 0, axis=-1) & (np.abs(outputs.sum(axis=-1) - 1) < SUMS_TO_ONE)
