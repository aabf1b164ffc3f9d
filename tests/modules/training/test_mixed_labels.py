"""Labels of mixup in the loss of a Learner, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from deep_network import strategy_of

from stillhouse.modules.distillation.objectives import kl_divergence
from stillhouse.modules.ingestion.views import PARTNER, SHARE
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.training.learner import Distillation, Learner

COUNT, CLASSES = 11, 3
MISSING = {"classification": -1, "multi_label": -1, "regression": np.nan}


def network(outputs, seed=3):
    keras.utils.set_random_seed(seed)
    features = keras.Input([4], name="features")
    return keras.Model(features, keras.layers.Dense(outputs)(features))


def batch(head):
    """Features, labels, partners' labels and shares; the second example has no label, the third's partner has none."""
    random = np.random.RandomState(5)
    x = random.normal(size=(COUNT, 4)).astype(np.float32)
    if head == "regression":
        own, partner = random.normal(size=(2, COUNT)).astype(np.float32)
    elif head == "multi_label":
        own, partner = random.randint(0, 2, [2, COUNT, CLASSES])
    else:
        own, partner = random.randint(0, CLASSES, [2, COUNT])
    own[1] = partner[2] = MISSING[head]
    return x, own, partner, random.uniform(0.5, 1, COUNT).astype(np.float32)


def numpy_loss(head, label, z):
    """The hard loss of one example, 0 without a label."""
    if np.any(np.isnan(label)) or (head != "regression" and np.any(np.less(label, 0))):
        return 0.0
    if head == "regression":
        return (label - z[0]) ** 2
    if head == "multi_label":
        return np.mean(np.log1p(np.exp(z)) - label * z)
    return np.log(np.exp(z).sum()) - z[label]


@pytest.mark.parametrize("head", ["classification", "multi_label", "regression"])
@pytest.mark.parametrize("distilled", [False, True])
def test_the_hard_loss_is_the_mean_of_both_labels_by_their_shares(head, distilled):
    x, own, partner, share = batch(head)
    trained = network(1 if head == "regression" else CLASSES)
    teacher = np.random.RandomState(7).normal(size=(COUNT, 1, trained.output_shape[-1])).astype(np.float32)
    learning = Distillation(lambda s, t, _: tf.reduce_sum(s * 0 + t, axis=-1), [1.0], "logits", 0.25, 1.0)
    learner = Learner(
        trained,
        HEADS[head],
        learning if distilled else None,
        # Asked in every step: what mixup hands on must not be lost.
        predict_targets=(lambda features: {"logits": tf.constant(teacher)}) if distilled else None,
    )
    losses, logits = learner.losses_of({"features": x}, tf.constant(own), {PARTNER: partner, SHARE: share}, True)
    z = logits.numpy().astype(np.float64)
    hard = [
        share[row] * numpy_loss(head, own[row], z[row]) + (1 - share[row]) * numpy_loss(head, partner[row], z[row])
        for row in range(COUNT)
    ]
    if distilled:
        np.testing.assert_allclose(losses["hard_loss"], hard, rtol=1e-5)
        np.testing.assert_allclose(losses["loss"], 0.75 * np.array(hard) + 0.25 * losses["soft_loss"], rtol=1e-5)
        assert np.std(losses["soft_loss"]) > 0
    else:
        np.testing.assert_allclose(losses["loss"], hard, rtol=1e-5)


def updated(devices, micro_batches):
    """Weights and reported metrics after one update on mixed labels and cached targets."""
    x, own, partner, share = batch("classification")
    teacher = np.random.RandomState(7).normal(size=(COUNT, 1, CLASSES)).astype(np.float32)
    whole = ({"features": x}, own, {"logits": teacher, PARTNER: partner, SHARE: share})
    strategy = strategy_of(devices)
    size = -(-COUNT // devices)

    def part(context):
        return tf.nest.map_structure(
            lambda values: values[context.replica_id_in_sync_group * size :][:size],
            tf.nest.map_structure(tf.constant, whole),
        )

    with strategy.scope():
        trained = network(CLASSES)
        learner = Learner(
            trained,
            distillation=Distillation(kl_divergence, [1.0], "arithmetic", 0.5, 2.0),
            micro_batches=micro_batches,
        )
        learner.compile(optimizer=keras.optimizers.SGD(0.5))
        batches = strategy.experimental_distribute_values_from_function(part)
    update = tf.function(lambda data: strategy.run(learner.update, args=((data, tf.constant(0.0)),)))
    update(batches)
    return trained.get_weights(), {name: float(value) for name, value in learner.means.result().items()}


def test_micro_batches_and_replicas_train_on_mixed_labels_as_one_batch_does():
    weights, metrics = updated(1, 1)
    assert not np.allclose(weights[0], network(CLASSES).get_weights()[0])
    for devices, micro_batches in ((1, 3), (2, 1), (2, 2)):
        theirs, their_metrics = updated(devices, micro_batches)
        for ours, other in zip(weights, theirs, strict=True):
            np.testing.assert_allclose(other, ours, rtol=1e-5, atol=1e-6)
        for name in ("loss", "hard_loss", "accuracy"):
            assert their_metrics[name] == pytest.approx(metrics[name], rel=1e-5)


def test_accuracy_and_hard_loss_are_means_over_the_shares_that_have_a_label():
    x, own, partner, share = batch("classification")
    kernel, bias = network(CLASSES).get_weights()
    z = (x @ kernel + bias).astype(np.float64)
    weights = np.stack([share * (own >= 0), (1 - share) * (partner >= 0)])
    right = np.stack([z.argmax(-1) == own, z.argmax(-1) == partner])
    losses = [
        [numpy_loss("classification", label, z[row]) for row, label in enumerate(each)] for each in (own, partner)
    ]
    _, metrics = updated(1, 1)
    assert metrics["accuracy"] == pytest.approx((weights * right).sum() / weights.sum(), rel=1e-5)
    assert metrics["hard_loss"] == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-5)
