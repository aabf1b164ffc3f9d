"""A student with a head for each teacher, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.distillation.head_per_teacher import CombinedHeads, logits_of_heads, with_heads
from stillhouse.modules.distillation.objectives import kl_divergence
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.training.learner import Distillation, Learner

HEAD = HEADS["classification"]
WEIGHTS = [1.0, 3.0]
BATCH, CLASSES = 6, 3


def student(outputs=CLASSES):
    keras.utils.set_random_seed(1)
    features = keras.Input([4], name="features")
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")(features)
    return keras.Model(features, keras.layers.Dense(outputs, name="classes")(hidden))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture
def batch():
    chance = np.random.RandomState(3)
    features = chance.normal(size=(BATCH, 4)).astype(np.float32)
    teachers = chance.normal(size=(BATCH, 2, CLASSES)).astype(np.float32)
    return features, np.array([0, 1, 2, -1, 1, 0]), teachers


def test_each_head_learns_from_its_own_teacher_and_the_labels(batch):
    features, labels, teachers = batch
    network = with_heads(student(), 2)
    distillation = Distillation(kl_divergence, WEIGHTS, "arithmetic", 0.7, 2.0, head_per_teacher=True)
    learner = Learner(network, HEAD, distillation)
    losses, logits = learner.losses_of(
        {"features": tf.constant(features)}, tf.constant(labels), {"logits": tf.constant(teachers)}, training=False
    )
    of_heads = network(features).numpy().reshape(BATCH, 2, CLASSES)
    hard, soft = np.zeros(BATCH), np.zeros(BATCH)
    for number, share in enumerate((0.25, 0.75)):
        probabilities = softmax(of_heads[:, number])
        hard += share * np.where(labels < 0, 0, -np.log(probabilities[np.arange(BATCH), labels]))
        p, q = softmax(teachers[:, number] / 2), softmax(of_heads[:, number] / 2)
        soft += share * 4 * (p * np.log(p / q)).sum(axis=-1)
    np.testing.assert_allclose(losses["hard_loss"], hard, rtol=1e-4)
    np.testing.assert_allclose(losses["soft_loss"], soft, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses["loss"], 0.3 * hard + 0.7 * soft, rtol=1e-4)
    mean = 0.25 * softmax(of_heads[:, 0]) + 0.75 * softmax(of_heads[:, 1])
    np.testing.assert_allclose(softmax(logits.numpy()), mean, rtol=1e-4)


def test_the_heads_answer_together_when_they_are_served(batch):
    network = with_heads(student(), 2)
    served = keras.Model(network.inputs, CombinedHeads(HEAD, WEIGHTS, "arithmetic")(network.output))
    of_heads = network(batch[0]).numpy().reshape(BATCH, 2, CLASSES)
    mean = 0.25 * softmax(of_heads[:, 0]) + 0.75 * softmax(of_heads[:, 1])
    assert served.output_shape == (None, CLASSES)
    np.testing.assert_allclose(softmax(served(batch[0]).numpy()), mean, rtol=1e-4)


def test_heads_of_a_single_logit_are_two_classes_each(batch):
    network = with_heads(student(outputs=1), 2)
    found = logits_of_heads(network(batch[0]), HEAD, 2).numpy()
    assert found.shape == (BATCH, 2, 2)
    np.testing.assert_allclose(found[..., 1], network(batch[0]))
    assert not found[..., 0].any()


def test_heads_start_with_weights_of_their_own():
    network = with_heads(student(), 2)
    kernels = [weight.numpy() for weight in network.weights if "classes" in weight.name and "kernel" in weight.name]
    assert [weight.name for weight in network.weights if "kernel" in weight.name] == [
        "hidden/kernel:0",
        "classes_1/kernel:0",
        "classes_2/kernel:0",
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_a_last_layer_that_is_used_twice_gets_heads_in_its_last_place(batch):
    features = keras.Input([CLASSES], name="features")
    layer = keras.layers.Dense(CLASSES, name="again")
    network = with_heads(keras.Model(features, layer(layer(features))), 2)
    inputs = batch[0][:, :CLASSES]
    again, first, second = (network.get_layer(name) for name in ("again", "again_1", "again_2"))
    wanted = np.concatenate([first(again(inputs)), second(again(inputs))], axis=-1)
    np.testing.assert_allclose(network(inputs), wanted, rtol=1e-5)
