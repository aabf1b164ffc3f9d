"""Objectives of distillation: the soft term, per example, as plain functions of logits.

Every objective takes (student_logits, teacher_logits, temperature), both logits float32 [batch, outputs] and not yet
divided by the temperature, and returns float32 [batch]. A user's own objective, named in the settings by import path,
has the same signature. Several teachers have been combined into one (`combination.py`) before that.

Symbols as in Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015): logits z, temperature T,
softened distribution p_i = exp(z_i / T) / sum_j exp(z_j / T) (their equation 1). The gradients of soft targets shrink
as 1/T²; the factor T² keeps the balance of the soft and the hard term when T changes (end of their section 2).
"""

import importlib
import traceback
from collections.abc import Callable

import tensorflow as tf

from stillhouse.modules import settings
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import MASKED

Objective = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def softened_probabilities(logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns softmax(z / T), float32 [..., classes]; exact to rounding for |z| up to 1e4, T from 1e-2 to 1e3."""
    return tf.nn.softmax(logits / temperature)


def _expectation(log_probabilities: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    # A probability that underflows to 0 makes the product 0, however large the other factor's magnitude.
    return tf.math.multiply_no_nan(values, tf.exp(log_probabilities))


def _cross_entropy(teacher: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
    # One operation forward and none backward, which matters for a small student.
    return tf.nn.softmax_cross_entropy_with_logits(labels=teacher, logits=logits / temperature)


def soft_cross_entropy(student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns −T² · sum_i p_i log q_i of the teacher's p and the student's q at T (Hinton et al. 2015, section 2)."""
    teacher = softened_probabilities(teacher_logits, temperature)
    return temperature**2 * _cross_entropy(teacher, student_logits, temperature)


def kl_divergence(student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns T² · KL(p ‖ q) of the teacher's p and the student's q at T.

    This is soft_cross_entropy minus T² times the teacher's entropy, which does not depend on the student.
    """
    teacher = softened_probabilities(teacher_logits, temperature)
    entropy = _cross_entropy(teacher, teacher_logits, temperature)
    return temperature**2 * (_cross_entropy(teacher, student_logits, temperature) - entropy)


def logit_matching(student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns ½ · sum_i (z_i − v_i)², for any T (Ba & Caruana 2014, "Do Deep Nets Really Need to be Deep?", eq. 1).

    T² · KL of N classes tends to 1/N of this for T → ∞ and logits of mean zero (Hinton et al. 2015, section 2.1).
    """
    return 0.5 * tf.reduce_sum(tf.square(student_logits - teacher_logits), axis=-1)


def multi_label_soft_cross_entropy(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Returns T² · binary cross-entropy with the teacher's sigmoid(v / T), mean over the labels of an example."""
    loss = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.sigmoid(teacher_logits / temperature), logits=student_logits / temperature
    )
    return temperature**2 * tf.reduce_mean(loss, axis=-1)


def multi_label_kl_divergence(student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns T² · KL of the Bernoulli distributions sigmoid(z / T), mean over the labels of an example."""
    divergence = tf.zeros([])
    for sign in (1.0, -1.0):  # the label holds; it does not
        teacher = tf.math.log_sigmoid(sign * teacher_logits / temperature)
        student = tf.math.log_sigmoid(sign * student_logits / temperature)
        divergence += _expectation(teacher, teacher - student)
    return temperature**2 * tf.reduce_mean(divergence, axis=-1)


def squared_error(student_outputs: tf.Tensor, teacher_outputs: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns the squared error of the student's number against the teacher's, float32 [batch], for any T."""
    return tf.reduce_sum(tf.square(student_outputs - teacher_outputs), axis=-1)


# By head, for the names that the settings have.
FUNCTIONS: dict[str, dict[str, Objective]] = {
    "classification": {
        "kl_divergence": kl_divergence,
        "soft_cross_entropy": soft_cross_entropy,
        "logit_matching": logit_matching,
    },
    "multi_label": {
        "kl_divergence": multi_label_kl_divergence,
        "soft_cross_entropy": multi_label_soft_cross_entropy,
        "logit_matching": logit_matching,
    },
    "regression": {"squared_error": squared_error},
    MASKED: {"kl_divergence": kl_divergence},
}
# A name of the settings without a function is a KeyError here.
OBJECTIVES = {head: {name: FUNCTIONS[head][name] for name in names} for head, names in settings.OBJECTIVES.items()}


def find_objective(name: str, head: str) -> Objective:
    """Returns the objective `name` of a head: one of OBJECTIVES, or a user's function by its import path.

    Raises:
      UserError: no objective has this name, or importing it fails.
    """
    if name in OBJECTIVES[head]:
        return OBJECTIVES[head][name]
    module, _, function = name.rpartition(".")
    key = "student.distillation.objective"
    if not module:
        raise UserError(
            f"{key}: found {name!r}; expected for the head {head} one of: {', '.join(OBJECTIVES[head])}, or the import "
            "path of a function"
        )
    try:
        objective = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # a user's module may raise anything
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{key}: importing {module!r} failed: {error} (at {line.filename}:{line.lineno})") from error
    if not callable(objective):
        raise UserError(f"{key}: module {module!r} has no function {function!r}")

    # AutoGraph is off in the training step; a user's function may need it.
    compiled = tf.function(objective)

    def checked(student_logits, teacher_logits, temperature):
        loss = compiled(student_logits, teacher_logits, temperature)
        if not tf.is_tensor(loss) or loss.shape.rank != 1:
            result = f"a tensor of shape {loss.shape}" if tf.is_tensor(loss) else type(loss).__name__
            raise UserError(
                f"{key}: {name} returned {result}; expected one loss per example, a tensor of shape [batch]"
            )
        return loss

    return checked
