"""Hidden-state hints: train the student's layers to match the teacher's.

FitNets (Romero et al. 2015, eq. 3): ½ · ‖u(x) − r(v(x))‖² of the teacher's hidden state u and the student's v, with a
learned regressor r. DistilBERT (Sanh et al. 2019, section 2): 1 − cos(u, v). Both are trained jointly with the
objective, weighted; a weight on the hints with alpha 0 approximates FitNets' own first stage, hints alone.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.models.layers import layer_output
from stillhouse.modules.models.teachers import HIDDEN
from stillhouse.modules.settings import Hint


def hidden_target(hint: Hint) -> str:
    """Returns the name of the teacher's hidden state among the targets."""
    return f"{HIDDEN}{hint.teacher}/{hint.teacher_layer}"


def mean_squared_hint(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Returns ½ of the squared difference, mean over all units, float32 [batch]; both [batch, ..., units].

    FitNets sums over the units; the mean makes one weight fit layers of any size.
    """
    axes = list(range(1, student.shape.rank))
    return 0.5 * tf.reduce_mean(tf.square(teacher - student), axis=axes)


def cosine_hint(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Returns 1 − cos of the last axis, mean over the other axes, float32 [batch]; both [batch, ..., units].

    Where the teacher's state is zero, as at padding, it has no direction; the mean excludes such positions.
    """
    cosine = tf.reduce_sum(tf.nn.l2_normalize(student, -1) * tf.nn.l2_normalize(teacher, -1), axis=-1)
    cosine = tf.reshape(cosine, [tf.shape(cosine)[0], -1])
    directed = tf.cast(tf.reduce_any(teacher != 0, axis=-1), tf.float32)
    directed = tf.reshape(directed, tf.shape(cosine))
    return tf.reduce_sum(directed * (1.0 - cosine), axis=-1) / tf.maximum(tf.reduce_sum(directed, axis=-1), 1.0)


KINDS = {"mean_squared": mean_squared_hint, "cosine": cosine_hint}


class Hints(keras.layers.Layer):
    """The weighted hint losses, with their learned projections."""

    def __init__(self, hints: Sequence[Hint], student: keras.Model, teacher_shapes: dict[str, list[int]]):
        """Builds the projections.

        Args:
          hints: the pairs of layers, with kind, weight and projection.
          student: the network in training.
          teacher_shapes: the shape of each hidden target, without the batch, by its name (`hidden_target`).

        Raises:
          UserError: a layer is missing, or the shapes of student and teacher differ in more than the last axis, or in
            the last axis without a projection.
        """
        super().__init__(name="hints")
        self._hints = hints
        self.student_layers = [layer_output(student, hint.student_layer, "the student") for hint in hints]
        self._projections: list[keras.layers.Layer | None] = []
        for hint, output in zip(hints, self.student_layers, strict=True):
            ours, theirs = list(output.shape[1:]), teacher_shapes[hidden_target(hint)]
            project = ours != theirs if hint.projection is None else hint.projection
            if ours[:-1] != theirs[:-1] or (ours != theirs and not project):
                raise UserError(
                    f"student.distillation.hints: found shape {ours} of the student's layer "
                    f"{hint.student_layer!r}, {theirs} of the teacher's {hint.teacher_layer!r}; expected shapes "
                    "that differ at most in the last axis (with a projection)"
                )
            projection = keras.layers.Dense(theirs[-1], name=f"projection_{len(self._projections) + 1}")
            if project:
                projection.build(output.shape)
            self._projections.append(projection if project else None)

    def call(self, student_states: list[tf.Tensor], targets: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weighted sum of the hint losses, float32 [batch]."""
        total = 0.0
        for hint, state, projection in zip(self._hints, student_states, self._projections, strict=True):
            state = tf.cast(projection(state) if projection else state, tf.float32)
            total += hint.weight * KINDS[hint.kind](state, targets[hidden_target(hint)])
        return total
