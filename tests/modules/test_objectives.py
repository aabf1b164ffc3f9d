import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modules.distillation import objectives


def softmax(z):
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference_loss(labels, student, teachers, temperature, alpha):
    """(1 - alpha) cross-entropy + alpha T² KL(mean of softened teachers || softened student), in float64."""
    p = np.mean([softmax(np.asarray(t) / temperature) for t in teachers], axis=0)
    q = softmax(np.asarray(student) / temperature)
    kl = np.sum(np.where(p > 0, p * (np.log(np.maximum(p, 1e-300)) - np.log(q)), 0), -1)
    hard = -np.log(softmax(student)[np.arange(len(labels)), labels])
    return (1 - alpha) * hard + alpha * temperature**2 * kl


def logits(seed, rows=6, classes=5):
    return np.random.RandomState(seed).normal(scale=3, size=(rows, classes)).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("teachers", [1, 3])
def test_distillation_loss_equals_numpy(temperature, alpha, teachers):
    labels = np.array([0, 1, 2, 3, 4, 0])
    student, teacher_logits = logits(0), [logits(seed) for seed in range(1, teachers + 1)]
    loss = objectives.distillation_loss(labels, student, [tf.constant(t) for t in teacher_logits], temperature, alpha)
    np.testing.assert_allclose(loss, reference_loss(labels, student, teacher_logits, temperature, alpha), rtol=2e-4)


def test_gradient_of_the_soft_term_is_temperature_times_the_difference_of_distributions():
    # d/dz of T² KL(p || softmax(z/T)) is T (q - p): Hinton et al. 2015, section 2.1, times T².
    temperature, student, teacher = 3.0, tf.Variable(logits(0)), logits(1)
    with tf.GradientTape() as tape:
        log_p = objectives.mean_softened_log_probabilities([tf.constant(teacher)], temperature)
        loss = tf.reduce_sum(objectives.kl_divergence(log_p, student, temperature))
    expected = temperature * (softmax(student.numpy() / temperature) - softmax(teacher / temperature))
    np.testing.assert_allclose(tape.gradient(loss, student), expected, atol=1e-5)


def test_soft_gradients_keep_their_size_when_the_temperature_rises():
    student, teacher = logits(0), logits(1)
    sizes = []
    for temperature in (10.0, 100.0):
        variable = tf.Variable(student)
        with tf.GradientTape() as tape:
            log_p = objectives.mean_softened_log_probabilities([tf.constant(teacher)], temperature)
            loss = tf.reduce_sum(objectives.kl_divergence(log_p, variable, temperature))
        sizes.append(np.abs(tape.gradient(loss, variable)).mean())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


@settings(deadline=None, max_examples=40)
@given(
    z=hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32)),
    temperature=st.floats(1e-2, 1e3),
)
def test_loss_is_finite_and_not_negative_for_extreme_logits(z, temperature):
    log_p = objectives.mean_softened_log_probabilities([tf.constant(z[::-1].copy())], temperature)
    loss = objectives.kl_divergence(log_p, tf.constant(z), temperature).numpy()
    assert np.all(np.isfinite(loss))
    assert np.all(loss >= -1e-3 * temperature**2)


def test_a_student_that_equals_its_teacher_has_no_soft_loss():
    z = tf.constant(logits(0))
    loss = objectives.kl_divergence(objectives.mean_softened_log_probabilities([z], 4.0), z, 4.0)
    np.testing.assert_allclose(loss, 0, atol=1e-5)


def test_one_output_is_the_logit_of_class_one():
    z = np.array([[-2.0], [0.0], [3.0]], np.float32)
    probabilities = tf.nn.softmax(objectives.class_logits(tf.constant(z)))
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-z[:, 0])), rtol=1e-6)
