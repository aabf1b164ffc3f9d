from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from deep_network import batches_of_replicas, strategy_of

from stillhouse.modules.distillation.objectives import kl_divergence
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.labels import LabelScan
from stillhouse.modules.settings import Optimizer
from stillhouse.modules.training.checks import check_classes, check_labels
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.learner import Distillation, Learner
from stillhouse.modules.training.optimizer import make_optimizer
from stillhouse.modules.training.report import EpochReport, EpochSize

CLASSES = 3
EXAMPLES = 22  # not a multiple of the batch size, so that the last batch is partial, and odd on two replicas
BATCH = 8


def data():
    random = np.random.RandomState(0)
    x = random.normal(size=(EXAMPLES, 4)).astype(np.float32)
    return x, random.randint(0, CLASSES, EXAMPLES).astype(np.int64)


def network(seed=3):
    keras.utils.set_random_seed(seed)
    features = keras.Input([4], name="features")
    hidden = keras.layers.Dense(5, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))(features)
    return keras.Model(features, keras.layers.Dense(CLASSES)(hidden))


def answers(features):
    """What a fixed teacher says: logits that are a function of the features, [batch, 1 teacher, classes]."""
    x = features["features"]
    return {"logits": (tf.concat([x[:, :2], x[:, 3:]], axis=1) * 2.0)[:, None]}


def distil(temperature, alpha):
    return Distillation(kl_divergence, [1.0], "arithmetic", alpha, temperature)


def train(strategy, distillation, epochs=3):
    x, y = data()
    dataset = batches_of_replicas(strategy, x, y, BATCH)
    with strategy.scope():
        trained = network()
        learner = Learner(
            trained, distillation=distil(**distillation) if distillation else None, predict_targets=answers
        )
        learner.compile(optimizer=make_optimizer(Optimizer(name="sgd", learning_rate=0.3), 1))
    steps = -(-EXAMPLES // BATCH)
    history = learner.fit(dataset, epochs=epochs, steps_per_epoch=steps, verbose=0)
    return trained.get_weights(), history.history


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def train_in_numpy(distillation, epochs=3):
    """The same training written out by hand: forward, backward, gradient step."""
    x, y = data()
    w1, b1, w2, b2 = [np.asarray(w, np.float64) for w in network().get_weights()]
    temperature, alpha = (distillation["temperature"], distillation["alpha"]) if distillation else (1.0, 0.0)
    for _ in range(epochs):
        for start in range(0, EXAMPLES, BATCH):
            xb, yb = x[start : start + BATCH].astype(np.float64), y[start : start + BATCH]
            hidden = np.tanh(xb @ w1 + b1)
            z = hidden @ w2 + b2
            teacher = np.concatenate([xb[:, :2], xb[:, 3:]], axis=1) * 2.0
            dz = (1 - alpha) * (softmax(z) - np.eye(CLASSES)[yb])
            dz += alpha * temperature * (softmax(z / temperature) - softmax(teacher / temperature))
            dz /= len(yb)
            dh = dz @ w2.T * (1 - hidden**2)
            g1, g2 = xb.T @ dh + 2 * 0.01 * w1, hidden.T @ dz
            w1, b1, w2, b2 = w1 - 0.3 * g1, b1 - 0.3 * dh.sum(0), w2 - 0.3 * g2, b2 - 0.3 * dz.sum(0)
    return [w1, b1, w2, b2]


@pytest.mark.parametrize("distillation", [None, {"temperature": 3.0, "alpha": 0.7}])
@pytest.mark.parametrize("devices", [1, 2])
def test_training_equals_numpy_on_one_device_and_on_two_replicas(distillation, devices):
    strategy = strategy_of(devices)
    assert strategy.num_replicas_in_sync == devices
    weights, _ = train(strategy, distillation)
    for ours, numpys in zip(weights, train_in_numpy(distillation), strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=1e-4, atol=1e-6)


def test_the_reported_loss_is_the_mean_over_examples():
    _, history = train(strategy_of(1), None, epochs=1)
    x, y = data()
    w1, b1, w2, b2 = [np.asarray(w, np.float64) for w in network().get_weights()]
    losses = []
    for start in range(0, EXAMPLES, BATCH):
        xb, yb = x[start : start + BATCH].astype(np.float64), y[start : start + BATCH]
        hidden = np.tanh(xb @ w1 + b1)
        p = softmax(hidden @ w2 + b2)
        losses += list(-np.log(p[np.arange(len(yb)), yb]))
        dz = (p - np.eye(CLASSES)[yb]) / len(yb)
        dh = dz @ w2.T * (1 - hidden**2)
        w1, w2 = w1 - 0.3 * (xb.T @ dh + 0.02 * w1), w2 - 0.3 * (hidden.T @ dz)
        b1, b2 = b1 - 0.3 * dh.sum(0), b2 - 0.3 * dz.sum(0)
    assert history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-4)


class Gated(keras.layers.Layer):
    """A user's layer with Python control flow on a tensor, which needs AutoGraph."""

    def call(self, inputs):
        if tf.reduce_sum(inputs) > 0:
            return inputs
        return -inputs


def test_layers_of_the_user_may_use_python_control_flow():
    features = keras.Input([4], name="features")
    model = keras.Model(features, keras.layers.Dense(CLASSES)(Gated()(features)))
    learner = Learner(model)
    learner.compile(optimizer="sgd")
    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices(({"features": x}, y, {})).batch(BATCH)
    learner.fit(batches.map(lambda *batch: (batch, 0.0)), verbose=0)


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(UserError, match="Teacher-1: the loss is nan in epoch 3; lower optimizer.learning_rate"):
        EpochReport("Teacher-1", 5, EpochSize(100, 7, 7)).on_epoch_end(2, {"loss": float("nan"), "input_wait": 0.0})


@pytest.mark.parametrize(("smallest", "largest", "wrong"), [(0, 3, "found 3 in"), (-1, 2, "found -1 in")])
def test_class_ids_outside_the_models_output_are_refused(smallest, largest, wrong):
    config = TrainingConfig(name="Student", role="student", task="task", label="label")
    with pytest.raises(UserError, match=wrong):
        check_labels(config, network(), LabelScan(9, 0, 1), LabelScan(9, smallest, largest))


@pytest.mark.parametrize(("names", "refused"), [(None, False), (["a", "b", "c"], False), (["a", "b"], True)])
def test_a_class_without_a_name_is_refused(names, refused):
    config = TrainingConfig(name="Student", role="student", task="task", label="label")
    message = (
        "found 3 classes .*expected at most 2: the train split has no other values of the label 'label' than a, b;"
    )
    with pytest.raises(UserError, match=message) if refused else nullcontext():
        check_classes(config, network(), names)


def test_cosine_schedule_ends_at_zero():
    optimizer = make_optimizer(Optimizer(name="sgd", learning_rate=0.1, schedule="cosine"), 10)
    weight = tf.Variable(0.0)
    path = []
    for _ in range(11):
        optimizer.apply_gradients([(tf.constant(1.0), weight)])
        path.append(float(weight))
    # The rate before update k is 0.1 (1 + cos(pi k / 10)) / 2.
    expected = -np.cumsum([0.05 * (1 + np.cos(np.pi * k / 10)) for k in range(11)])
    np.testing.assert_allclose(path, expected, rtol=1e-5)
    assert path[10] == pytest.approx(path[9])
