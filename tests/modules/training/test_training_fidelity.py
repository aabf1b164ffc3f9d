"""What a student's card says about its soft targets, against NumPy, and the warnings of a soft term of no use."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, changed, network, training_config

from stillhouse.modules.distillation.diagnosis import MIN_GRADIENT_SHARE
from stillhouse.modules.distillation.objectives import kl_divergence
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles, example_files, in_order, split_folder
from stillhouse.modules.ingestion.soft_targets import read_soft_targets_card
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.training.learner import Distillation, Learner
from stillhouse.modules.training.soft_term import soft_gradient_share
from stillhouse.modules.training.train import train
from stillhouse.modules.training.training_fidelity import vary


@pytest.fixture
def run(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)
    return Artifacts(trained.folder / "runs" / "blobs")


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def read_train(run, config):
    """Returns features [n, 4], labels and the teachers' logits [n, 2, 3] of the train split."""
    folder = split_folder(config.soft_targets, "train")
    files = ExampleFiles(example_files(run.fn_args(run.examples).train_files), folder)
    card = read_soft_targets_card(config.soft_targets)
    parser = ExampleParser(run.transform.transformed_feature_spec(), "tree", HEADS["classification"], card)
    features, labels, targets = parser(next(iter(in_order(files).batch(10_000))))
    return features["features"].numpy(), labels.numpy(), targets["logits"].numpy()


def test_the_card_has_the_entropy_of_the_teachers_and_the_students_agreement_with_them(run, tmp_path):
    config = training_config(run, True)
    trained_network, card = train(config, run.fn_args(tmp_path))
    features, _, logits = read_train(run, config)
    teachers = (softmax(logits.astype(np.float64)) * np.array([1 / 3, 2 / 3])[:, None]).sum(axis=1)
    student = trained_network.predict(features, verbose=0).argmax(axis=-1)
    found = card["distillation"]
    assert found["entropy"] == pytest.approx(-(teachers * np.log(teachers)).sum(axis=-1).mean(), rel=1e-4)
    assert found["agreement"] == pytest.approx((student == teachers.argmax(axis=-1)).mean(), abs=1e-9)
    assert found["max_entropy"] == pytest.approx(np.log(3))
    assert (found["examples"], found["entropy_transfer"], found["targets_vary"]) == (len(features), None, True)
    assert 0.2 < found["soft_gradient_share"] < 1
    assert "soft_gradient_share" not in card["history"]


def unlabelled_copy(run, folder):
    """Returns the pattern of the train split without its labels, and the number of these examples."""
    folder.mkdir()
    count = 0
    with tf.io.TFRecordWriter(str(folder / "unlabelled.gz"), "GZIP") as writer:
        for record in in_order(ExampleFiles(example_files(run.fn_args(folder).train_files))).take(100):
            example = tf.train.Example.FromString(record.numpy())
            del example.features.feature["tree"]
            writer.write(example.SerializeToString())
            count += 1
    return str(folder / "*"), count


@pytest.mark.parametrize("devices", [1, 2])
def test_online_teachers_are_asked_about_labelled_and_unlabelled_inputs_under_a_strategy(run, tmp_path, devices):
    pattern, count = unlabelled_copy(run, tmp_path / "transfer")
    strategy = {"name": "mirrored", "devices": 2} if devices == 2 else {"name": "one_device"}
    teachers = [str(model / "Format-Serving") for model in run.teachers()]
    cached = training_config(run, True)
    settings = cached.distillation.model_dump() | {"head_per_teacher": True}
    config = changed(
        cached, soft_targets=None, teachers=teachers, transfer_files=[pattern], distillation=settings, strategy=strategy
    )
    _, card = train(config, run.fn_args(tmp_path))
    _, _, logits = read_train(run, cached)
    teachers = (softmax(logits.astype(np.float64)) * np.array([1 / 3, 2 / 3])[:, None]).sum(axis=1)
    entropies = -(teachers * np.log(teachers)).sum(axis=-1)
    found = card["distillation"]
    assert found["entropy"] == pytest.approx(entropies.mean(), rel=1e-4)
    assert found["entropy_transfer"] == pytest.approx(entropies[:count].mean(), rel=1e-4)
    assert found["examples"] == len(teachers) + count
    assert 0.3 < found["agreement"] <= 1
    assert 0.2 < found["soft_gradient_share"] < 1


def warnings_of(caplog, config, run, folder):
    with caplog.at_level(logging.INFO, logger="stillhouse"):
        _, card = train(config, run.fn_args(folder))
    return card, [record.message for record in caplog.records if record.message.startswith("warning")]


def test_teachers_that_say_the_same_about_everything_are_a_warning_once(run, tmp_path, caplog):
    constant = run.export(tmp_path / "constant", network(weight=0.0))
    config = training_config(run, True, soft_targets=None, teachers=[str(constant / "Format-Serving")] * 2)
    card, warnings = warnings_of(caplog, config, run, tmp_path)
    assert card["distillation"]["targets_vary"] is False
    assert len(warnings) == 1
    assert "the teachers predict the same for each of 32 labelled inputs" in warnings[0]


def test_a_soft_term_without_weight_is_a_warning_once(run, tmp_path, caplog):
    settings = training_config(run, True).distillation.model_dump() | {"alpha": {"start": 0.001, "end": 0.001}}
    card, warnings = warnings_of(caplog, changed(training_config(run, True), distillation=settings), run, tmp_path)
    assert 0 < card["distillation"]["soft_gradient_share"] < MIN_GRADIENT_SHARE
    assert len(warnings) == 1
    assert "raise student.distillation.alpha" in warnings[0]


def test_a_healthy_soft_term_is_no_warning(run, tmp_path, caplog):
    _, warnings = warnings_of(caplog, training_config(run, True, loop="custom", epochs=1), run, tmp_path)
    assert warnings == []


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_the_share_of_the_gradient_is_that_of_the_two_norms(alpha):
    random = np.random.RandomState(2)
    x, labels = random.normal(size=(8, 4)).astype(np.float32), random.randint(0, 3, 8)
    logits = random.normal(size=(8, 1, 3)).astype(np.float32)
    student = network()
    learner = Learner(student, distillation=Distillation(kl_divergence, [1.0], "arithmetic", alpha, 2.0))
    batch = ({"features": tf.constant(x)}, tf.constant(labels), {"logits": tf.constant(logits)})
    share = soft_gradient_share(learner, tf.distribute.get_strategy(), batch)
    z = x.astype(np.float64) @ student.get_weights()[0]

    def norm(of_logits):  # of the gradients of weights and biases
        return np.sqrt(((x.T @ of_logits) ** 2).sum() + (of_logits.sum(axis=0) ** 2).sum())

    soft = alpha * norm(2.0 * (softmax(z / 2) - softmax(logits[:, 0] / 2)))
    hard = (1 - alpha) * norm(softmax(z) - np.eye(3)[labels])
    assert share == pytest.approx(soft / (soft + hard), rel=1e-4)


def test_predictions_vary_unless_all_inputs_get_the_same():
    assert vary(np.array([0.2, 0.3]), np.array([0.2, 0.4]))
    assert not vary(np.array([0.2, 0.3]), np.array([0.2, 0.30001]))
    assert not vary(np.array(5000.0), np.array(5000.1))  # of a number, in proportion
