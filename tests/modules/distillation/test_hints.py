import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.distillation.hints import Hints, cosine_hint, mean_squared_hint
from stillhouse.modules.distillation.objectives import kl_divergence
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Hint
from stillhouse.modules.training.learner import Distillation, Learner

HINT = Hint(teacher_layer="deep", student_layer="hidden", weight=0.5)


def student():
    keras.utils.set_random_seed(1)
    features = keras.Input([4], name="features")
    hidden = keras.layers.Dense(3, name="hidden")(features)
    return keras.Model(features, keras.layers.Dense(2)(hidden))


def states(seed, shape):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def test_mean_squared_hint_equals_numpy():
    u, v = states(0, (5, 3, 4)), states(1, (5, 3, 4))
    np.testing.assert_allclose(
        mean_squared_hint(tf.constant(v), tf.constant(u)), 0.5 * ((u - v) ** 2).mean((1, 2)), rtol=1e-5
    )


def test_cosine_hint_equals_numpy():
    u, v = states(0, (5, 3, 4)), states(1, (5, 3, 4))
    cosine = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1))
    np.testing.assert_allclose(cosine_hint(tf.constant(v), tf.constant(u)), 1 - cosine.mean(-1), rtol=1e-5)


def test_a_projection_is_learnt_where_widths_differ_and_only_there():
    assert Hints([HINT], student(), {"hidden/1/deep": [3]}).trainable_variables == []
    kernel, bias = Hints([HINT], student(), {"hidden/1/deep": [7]}).trainable_variables
    assert (kernel.shape, bias.shape) == ((3, 7), (7,))


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"student_layer": "hiden"}, [3], r"found 'hiden'; expected a layer of the student: features, hidden"),
        ({}, [5, 3], r"found shape \[3\] of the student's layer 'hidden', \[5, 3\] of the teacher's 'deep'"),
        (
            {"projection": False},
            [7],
            r"\[7\] of the teacher's 'deep'; expected shapes that differ at most in the last axis",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(changes, shape, message):
    with pytest.raises(UserError, match=message):
        Hints([HINT.model_copy(update=changes)], student(), {"hidden/1/deep": shape})


def test_a_hint_moves_the_students_layer_and_its_projection_as_numpy_says():
    network = student()
    hints = Hints([HINT], network, {"hidden/1/deep": [2]})
    distillation = Distillation(kl_divergence, [1.0], "arithmetic", 0.0, 1.0, hints)
    learner = Learner(network, distillation=distillation)
    learner.compile(optimizer=keras.optimizers.SGD(0.1))
    x, u = states(0, (6, 4)), states(1, (6, 2))
    w, b, _, _ = (v.numpy() for v in network.weights)
    p, c = (v.numpy() for v in hints.trainable_variables)
    targets = {"logits": np.zeros([6, 1, 2], np.float32), "hidden/1/deep": u}
    # No example has a label and alpha is 0: the hint is all that there is.
    data = tf.data.Dataset.from_tensor_slices(({"features": x}, -np.ones(6, np.int64), targets)).batch(6)
    learner.fit(data.map(lambda *batch: (batch, 0.0)), verbose=0)
    difference = 0.5 * ((x @ w + b) @ p + c - u) / u.shape[1] / 6  # d loss / d projected state
    new_p, new_c = (v.numpy() for v in hints.trainable_variables)
    np.testing.assert_allclose(new_p, p - 0.1 * (x @ w + b).T @ difference, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new_c, c - 0.1 * difference.sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.weights[0], w - 0.1 * x.T @ (difference @ p.T), rtol=1e-4, atol=1e-6)
