import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy_reference import logits, sigmoid, softmax

from stillhouse.modules.distillation import objectives
from stillhouse.modules.errors import UserError
from stillhouse.modules.models.heads import HEADS, class_logits, class_loss, multi_label_loss


# Loss and gradient with respect to the student's logits, in float64 and by hand.
def numpy_kl(z, v, t):
    p, q = softmax(v / t), softmax(z / t)
    return t**2 * np.sum(p * (np.log(p) - np.log(q)), -1), t * (q - p)


def numpy_soft_cross_entropy(z, v, t):
    p, q = softmax(v / t), softmax(z / t)
    return -(t**2) * np.sum(p * np.log(q), -1), t * (q - p)


def numpy_logit_matching(z, v, t):
    return 0.5 * np.sum((z - v) ** 2, -1), z - v


def numpy_multi_label_kl(z, v, t):
    p, q = sigmoid(v / t), sigmoid(z / t)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return t**2 * kl.mean(-1), t * (q - p) / z.shape[-1]


def numpy_multi_label_soft_cross_entropy(z, v, t):
    p, q = sigmoid(v / t), sigmoid(z / t)
    return -(t**2) * (p * np.log(q) + (1 - p) * np.log(1 - q)).mean(-1), t * (q - p) / z.shape[-1]


def numpy_squared_error(z, v, t):
    return np.sum((z - v) ** 2, -1), 2 * (z - v)


REFERENCES = {
    objectives.kl_divergence: numpy_kl,
    objectives.soft_cross_entropy: numpy_soft_cross_entropy,
    objectives.logit_matching: numpy_logit_matching,
    objectives.multi_label_kl_divergence: numpy_multi_label_kl,
    objectives.multi_label_soft_cross_entropy: numpy_multi_label_soft_cross_entropy,
    objectives.squared_error: numpy_squared_error,
}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("objective", REFERENCES, ids=lambda objective: objective.__name__)
def test_loss_and_gradient_equal_numpy(objective, temperature):
    student, teacher = tf.Variable(logits(0)), logits(1)
    with tf.GradientTape() as tape:
        loss = objective(student, tf.constant(teacher), tf.constant(temperature))
    gradient = tape.gradient(loss, student)
    z, v = np.float64(student.numpy()), np.float64(teacher)
    expected_loss, expected_gradient = REFERENCES[objective](z, v, temperature)
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-4, atol=1e-5)


def test_every_objective_of_the_settings_has_a_function_and_a_reference_and_no_function_is_out_of_reach():
    assert objectives.OBJECTIVES == objectives.FUNCTIONS
    functions = {function for of_head in objectives.OBJECTIVES.values() for function in of_head.values()}
    assert functions == set(REFERENCES)
    assert set(objectives.OBJECTIVES) == set(HEADS)


def test_at_high_temperature_the_soft_term_is_logit_matching_of_centred_logits():
    # Hinton et al. 2015, section 2.1: dC/dz_i -> (z_i - v_i) / (N T²), here times T².
    classes, temperature = 5, 1e3
    student, teacher = logits(0), logits(1)
    student -= student.mean(-1, keepdims=True)
    teacher -= teacher.mean(-1, keepdims=True)
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = objectives.kl_divergence(variable, tf.constant(teacher), temperature)
    np.testing.assert_allclose(tape.gradient(loss, variable), (student - teacher) / classes, rtol=0.02, atol=2e-3)
    with tf.GradientTape() as tape:
        matching = objectives.logit_matching(variable, tf.constant(teacher), temperature)
    np.testing.assert_allclose(tape.gradient(matching, variable), student - teacher, rtol=1e-6)


def test_soft_gradients_keep_their_size_when_the_temperature_rises():
    sizes = []
    for temperature in (10.0, 100.0):
        variable = tf.Variable(logits(0))
        with tf.GradientTape() as tape:
            loss = objectives.kl_divergence(variable, tf.constant(logits(1)), temperature)
        sizes.append(np.abs(tape.gradient(loss, variable)).mean())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


EXTREME = hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32))


@settings(deadline=None, max_examples=60)
@given(z=EXTREME, temperature=st.floats(1e-2, 1e3))
def test_softened_probabilities_are_right_for_extreme_logits_and_temperatures(z, temperature):
    found = objectives.softened_probabilities(tf.constant(z), temperature).numpy()
    # float32 division by T moves z / T by a relative 1e-7, which in the exponent is an absolute 1e-7 |z| / T.
    tolerance = 1e-5 + 4e-7 * np.abs(z).max() / temperature
    np.testing.assert_allclose(found, softmax(np.float64(z) / np.float64(temperature)), atol=min(tolerance, 1.0))
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(z=EXTREME, temperature=st.floats(1e-2, 1e3))
@pytest.mark.parametrize("objective", REFERENCES, ids=lambda objective: objective.__name__)
def test_loss_and_gradient_are_finite_for_extreme_logits_and_temperatures(objective, z, temperature):
    student = tf.Variable(z)
    with tf.GradientTape() as tape:
        loss = objective(student, tf.constant(z[::-1].copy()), tf.constant(temperature, tf.float32))
    assert np.all(np.isfinite(loss))
    assert np.all(np.isfinite(tape.gradient(loss, student)))
    assert np.all(loss >= -1e-3 * max(1.0, temperature**2))


@pytest.mark.parametrize("objective", [objectives.kl_divergence, objectives.multi_label_kl_divergence])
def test_a_student_that_equals_its_teacher_has_no_divergence(objective):
    z = tf.constant(logits(0))
    np.testing.assert_allclose(objective(z, z, 4.0), 0, atol=1e-5)


def test_label_smoothing_equals_cross_entropy_with_smoothed_targets():
    labels, z, smoothing = np.array([0, 1, 2, 3, 4, 0]), logits(0), 0.2
    targets = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -np.sum(targets * np.log(softmax(z)), -1)
    np.testing.assert_allclose(class_loss(tf.constant(labels), tf.constant(z), smoothing), expected, rtol=1e-5)
    many = (logits(2) > 0).astype(np.int64)
    targets = (1 - smoothing) * many + smoothing / 2
    expected = -(targets * np.log(sigmoid(z)) + (1 - targets) * np.log(1 - sigmoid(z))).mean(-1)
    np.testing.assert_allclose(multi_label_loss(tf.constant(many), tf.constant(z), smoothing), expected, rtol=1e-5)


def test_one_output_is_the_logit_of_class_one():
    z = np.array([[-2.0], [0.0], [3.0]], np.float32)
    probabilities = tf.nn.softmax(class_logits(tf.constant(z)))
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-z[:, 0])), rtol=1e-6)


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_objectives.py").write_text(
        "import tensorflow as tf\n"
        "def absolute(student_logits, teacher_logits, temperature):\n"
        "    return tf.reduce_sum(tf.abs(student_logits - teacher_logits), axis=-1)\n"
        "def branching(student_logits, teacher_logits, temperature):\n"
        "    if tf.reduce_sum(student_logits) > 1e9:\n"
        "        return tf.zeros([tf.shape(student_logits)[0]])\n"
        "    return absolute(student_logits, teacher_logits, temperature)\n"
        "def scalar(student_logits, teacher_logits, temperature):\n"
        "    return tf.reduce_sum(student_logits)\n"
    )
    yield
    sys.modules.pop("own_objectives", None)


@pytest.mark.parametrize("name", ["absolute", "branching"])
def test_a_users_own_objective_is_found_by_import_path_and_may_branch(own, name):
    found = objectives.find_objective(f"own_objectives.{name}", "classification")
    z, v = logits(0), logits(1)
    # As in the training step, where AutoGraph is off.
    step = tf.function(tf.autograph.experimental.do_not_convert(lambda z, v: found(z, v, tf.constant(1.0))))
    np.testing.assert_allclose(step(tf.constant(z), tf.constant(v)), np.abs(z - v).sum(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean", "found 'mean'; expected for the head classification one of: kl_divergence, soft_cross_entropy, l"),
        ("squared_error", "found 'squared_error'; expected for the head classification"),
        ("own_objectives.missing", "module 'own_objectives' has no function 'missing'"),
        ("nowhere_at_all.f", "importing 'nowhere_at_all' failed: No module named"),
    ],
)
def test_an_objective_that_is_not_there_is_named(own, name, message):
    with pytest.raises(UserError, match=message):
        objectives.find_objective(name, "classification")


def test_an_objective_that_gives_no_loss_per_example_is_refused(own):
    objective = objectives.find_objective("own_objectives.scalar", "classification")
    with pytest.raises(UserError, match=r"returned a tensor of shape \(\); expected one loss per example"):
        objective(tf.constant(logits(0)), tf.constant(logits(1)), 1.0)
