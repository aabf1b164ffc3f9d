"""The validation split chooses the epoch, and ends a training job that no longer gets better."""

import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, training_config

from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import count_records, example_files
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.plan import divided
from stillhouse.modules.training.train import train
from stillhouse.modules.training.validation import best_epoch, evaluation_batches, has_ended


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture
def validated(run, trained, monkeypatch, tmp_path):
    """validated(**changes) trains a baseline whose validation split is a copy of the eval split."""
    monkeypatch.syspath_prepend(trained.folder)
    split = tmp_path / "Split-validation"
    shutil.copytree(run.examples / "Split-eval", split)

    def call(**changes):
        arguments = run.fn_args(tmp_path)
        arguments.eval_files = [*arguments.eval_files, str(split / "*")]
        return train(training_config(run, False, **changes), arguments)

    call.split = split
    return call


def history(losses, accuracies):
    return {"validation_loss": losses, "validation_accuracy": accuracies}


def test_the_best_epoch_has_the_best_accuracy_and_of_equal_ones_the_smallest_loss():
    assert best_epoch(history([0.5, 0.3, 0.4, 0.2], [0.8, 0.9, 0.9, 0.7]), "accuracy") == 1
    assert (
        best_epoch({"validation_loss": [3.0, 1.0], "validation_mean_absolute_error": [1.0, 2.0]}, "mean_absolute_error")
        == 0
    )
    assert best_epoch({}, "accuracy") is None


def test_a_loss_that_is_no_number_is_never_the_best():
    assert best_epoch(history([float("nan"), 0.9], [1.0, 0.1]), "accuracy") == 1


def test_a_training_has_ended_after_so_many_epochs_without_a_better_one():
    worse = history([0.3, 0.4, 0.5], [0.9, 0.8, 0.8])
    assert has_ended(worse, "accuracy", 2)
    assert not has_ended(worse, "accuracy", 3)
    assert not has_ended(worse, "accuracy", None)


def figures_of(network, run, split):
    parser = ExampleParser(run.transform.transformed_feature_spec(), "tree", HEADS["classification"])
    (batch,) = evaluation_batches(example_files([str(split / "*")]), parser).unbatch().batch(1000)
    logits = network(batch[0]["features"]).numpy()
    labels = batch[1].numpy()
    log_sums = np.log(np.exp(logits).sum(axis=1))
    losses = log_sums - logits[np.arange(len(labels)), labels]
    return {"loss": losses.mean(), "accuracy": (logits.argmax(axis=1) == labels).mean()}


def test_the_exported_weights_are_those_of_the_best_epoch(validated, run):
    # A learning rate at which the last epoch is not the best one.
    network, card = validated(epochs=8, optimizer={"learning_rate": 0.3})
    accuracies, losses = (card["history"][f"validation_{name}"] for name in ("accuracy", "loss"))
    best = min(range(8), key=lambda epoch: (-accuracies[epoch], losses[epoch]))
    assert best < 7
    assert card["validation"]["best_epoch"] == best + 1
    assert card["validation"]["epochs"] == 8
    figures = figures_of(network, run, validated.split)
    assert figures["accuracy"] == pytest.approx(accuracies[best])
    assert figures["loss"] == pytest.approx(losses[best], rel=1e-4)
    last, _ = validated(epochs=8, optimizer={"learning_rate": 0.3}, keep="last")
    assert figures_of(last, run, validated.split)["loss"] == pytest.approx(losses[7], rel=1e-4)


@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_early_stopping_ends_a_training_in_both_loops(validated, loop):
    _, card = validated(epochs=50, optimizer={"learning_rate": 0.3}, early_stopping=2, loop=loop)
    epochs = card["validation"]["epochs"]
    assert epochs == card["validation"]["best_epoch"] + 2 < 50
    assert len(card["history"]["loss"]) == epochs
    assert card["updates"] == epochs * -(-card["train_examples"] // 32)


class StoppedError(Exception):
    """Stands for whatever ends a training job."""


def test_a_resumed_training_keeps_the_best_epoch_from_before_it_was_stopped(validated, tmp_path, monkeypatch):
    changes = {"epochs": 8, "optimizer": {"learning_rate": 0.3}, "checkpoints": {"every_steps": 1}}
    undisturbed, card = validated(**changes)
    assert card["validation"]["best_epoch"] < 7

    from stillhouse.modules.training import run as run_module
    from stillhouse.modules.training.report import EpochReport

    class Report(EpochReport):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 7:
                raise StoppedError

    changes["checkpoint_folder"] = str(tmp_path / "checkpoints")
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "EpochReport", Report)
        with pytest.raises(StoppedError):
            validated(**changes)
    resumed, resumed_card = validated(**changes)
    assert resumed_card["validation"] == card["validation"]
    for ours, theirs in zip(resumed.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_training_that_had_ended_early_does_not_go_on(validated, tmp_path):
    changes = {"epochs": 50, "optimizer": {"learning_rate": 0.3}, "early_stopping": 2}
    changes |= {"checkpoints": {"every_steps": 1}, "checkpoint_folder": str(tmp_path / "checkpoints")}
    _, card = validated(**changes)
    _, again = validated(**changes)  # train() leaves the checkpoints
    assert again["validation"] == card["validation"]
    assert again["updates"] == card["updates"]


def test_averaged_weights_are_the_moving_average_after_every_update(validated):
    momentum, epochs = 0.8, 5
    changes = {"batch_size": 1000, "keep": "last"}  # an epoch is one update
    still, _ = validated(epochs=1, optimizer={"learning_rate": 1e-12}, **changes)
    expected = still.get_weights()
    for number in range(1, epochs + 1):
        trained, _ = validated(epochs=number, optimizer={"learning_rate": 0.1}, **changes)
        weights = zip(expected, trained.get_weights(), strict=True)
        expected = [momentum * average + (1 - momentum) * weight for average, weight in weights]
    averaged, card = validated(epochs=epochs, optimizer={"learning_rate": 0.1, "average": momentum}, **changes)
    for ours, theirs in zip(averaged.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert card["history"]["loss"][-1] > 0


def test_a_baseline_makes_as_many_updates_as_its_student_with_unlabelled_examples(validated, run):
    unlabelled = [str(run.examples / "Split-train" / "*")]
    examples = count_records(example_files(unlabelled))
    matched = {"batch_size": 32, "with_others": True}
    _, card = validated(role="baseline", epochs=3, matched=matched, matched_files=unlabelled)
    assert card["updates"] == 3 * -(-2 * examples // 32)
    assert card["train_examples"] == examples
    assert card["transfer_examples"] == 0


def test_a_baseline_is_validated_more_often_than_a_student_with_many_more_examples(validated):
    _, card = validated(role="baseline", epochs=3, updates=3 * 60)  # a pass has 15
    assert card["validation"]["epochs"] == 3 * 4
    assert card["updates"] == 180


def test_a_baseline_makes_the_updates_that_it_is_told_to(validated):
    _, card = validated(role="baseline", epochs=3, updates=40)
    assert card["updates"] == 42  # rounded up to a multiple of the epochs


def test_the_parts_of_an_epoch_add_few_updates():
    config = TrainingConfig(name="Baseline", role="baseline", task="t", label="y", epochs=1)
    for updates in range(1, 200):  # a prime number of them has no equal parts
        config_of_parts, steps = divided(config, updates, own_steps=1)
        assert config_of_parts.epochs <= 10
        assert updates <= config_of_parts.epochs * steps <= 1.1 * updates


def test_a_validation_split_without_a_class_is_told(validated, run, caplog):
    file = next(validated.split.iterdir())
    parser = ExampleParser(run.transform.transformed_feature_spec(), "tree", HEADS["classification"])
    records = [
        record.numpy()
        for record in tf.data.TFRecordDataset(str(file), "GZIP")
        if parser(record[None])[1].numpy()[0] != 1
    ]
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for record in records:
            writer.write(record)
    name = run.transform.vocabulary_by_name("tree")[1].decode()
    with caplog.at_level(logging.INFO):
        validated(epochs=1)
    assert f"validation has no examples of 1 of 3 classes: {name}" in caplog.text
