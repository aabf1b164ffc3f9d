"""A training that is stopped anywhere goes on as if nothing had happened."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras
from artifacts import Artifacts, changed, training_config
from deep_network import soak

from stillhouse.modules.errors import UserError
from stillhouse.modules.training import plan
from stillhouse.modules.training import run as run_module
from stillhouse.modules.training.config import identity_of
from stillhouse.modules.training.report import EpochReport
from stillhouse.modules.training.train import train

STEPS = 15  # of an epoch: 457 examples, 31 in a batch
EVERY = 4


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture
def config(run, trained, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(trained.folder)
    monkeypatch.setattr(plan, "MAX_STEPS_PER_EXECUTION", 2)
    return training_config(
        run,
        True,
        builder="build_with_dropout",
        batch_size=31,
        epochs=3,
        checkpoints={"every_steps": EVERY, "keep": 3},
        checkpoint_folder=str(tmp_path / "checkpoints"),
        ingestion={"cache": "memory"},
    )


class StoppedError(Exception):
    """Stands for whatever ends a training."""


@pytest.fixture
def stop(monkeypatch):
    """stop(step) makes the trainings that follow end at that step; stop(None) lets them go on."""
    at = {}

    class Report(EpochReport):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self.step = epoch * STEPS

        def on_train_batch_end(self, batch, logs=None):
            if at["step"] is not None and self.step + batch + 1 >= at["step"]:
                raise StoppedError

    monkeypatch.setattr(run_module, "EpochReport", Report)
    return lambda step: at.update(step=step)


def assert_same(ours, theirs):
    (network, card), (other, other_card) = ours, theirs
    for weights, expected in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-7)
    assert card["history"].keys() == other_card["history"].keys()
    for name, values in card["history"].items():
        np.testing.assert_allclose(values, other_card["history"][name], rtol=1e-5)
    for name in ("entropy", "agreement", "soft_gradient_share"):
        assert card["distillation"][name] == pytest.approx(other_card["distillation"][name], rel=1e-4)


@pytest.mark.parametrize(("loop", "cache"), [soak("fit", "memory"), ("custom", "disk"), soak("fit", "none")])
def test_a_resumed_training_equals_an_undisturbed_one_dropout_included(config, run, stop, tmp_path, loop, cache):
    stop(None)
    config = changed(config, loop=loop, ingestion={"cache": cache, "cache_folder": str(tmp_path / "cache")})
    undisturbed = train(changed(config, checkpoint_folder=None), run.fn_args(tmp_path))
    for step in (9, 15, 38):
        stop(step)
        with pytest.raises(StoppedError):
            train(config, run.fn_args(tmp_path))
    stop(None)
    assert_same(train(config, run.fn_args(tmp_path)), undisturbed)


def test_a_training_that_fails_leaves_keras_as_it_was(config, run, stop, tmp_path):
    stop(9)
    with pytest.raises(StoppedError):
        train(changed(config, precision="mixed_bfloat16"), run.fn_args(tmp_path))
    assert keras.mixed_precision.global_policy().name == "float32"
    assert not keras.backend.experimental.is_tf_random_generator_enabled()


def files(config):
    (folder,) = (path for path in Path(config.checkpoint_folder).iterdir() if path.is_dir())
    return sorted(
        folder.glob("chief-0/checkpoint-*.data*"), key=lambda path: int(path.name.split(".")[0].split("-")[1])
    )


@pytest.mark.parametrize("damage", [soak("cut"), "one byte", soak("gone")])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(config, run, stop, tmp_path, damage, caplog):
    stop(None)
    undisturbed = train(changed(config, checkpoint_folder=None), run.fn_args(tmp_path))
    stop(29)
    with pytest.raises(StoppedError):
        train(config, run.fn_args(tmp_path))
    before, newest = files(config)[-2:]
    data = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "one byte":
        data[len(data) // 3] ^= 0xFF
        newest.write_bytes(data)
    else:
        newest.unlink()
    stop(None)
    with caplog.at_level("INFO", logger="stillhouse"):
        assert_same(train(config, run.fn_args(tmp_path)), undisturbed)
    assert f"{newest.name.split('.')[0]} is corrupt" in caplog.text
    assert f"resuming at step {before.name.split('.')[0].split('-')[1]} of {3 * STEPS}" in caplog.text


def test_checkpoints_of_another_model_are_refused(config, run, stop, tmp_path):
    stop(9)
    with pytest.raises(StoppedError):
        train(config, run.fn_args(tmp_path))
    (old,) = (path for path in Path(config.checkpoint_folder).iterdir() if path.is_dir())
    stop(None)
    other = changed(config, hyperparameters={"units": 7})
    identity = identity_of(other, run.fn_args(tmp_path))
    shutil.copytree(old, old.with_name(identity))
    with pytest.raises(UserError, match="its checkpoints belong to another model or training job; remove the folder"):
        train(other, run.fn_args(tmp_path))


def test_only_so_many_checkpoints_are_kept(config, run, stop, tmp_path):
    stop(None)
    train(config, run.fn_args(tmp_path))
    assert len(files(config)) == 3


@pytest.mark.parametrize(("loop", "schedule"), [soak("fit", "gpipe"), soak("custom", "1f1b")])
def test_a_training_in_stages_is_that_in_one_piece_and_goes_on_where_it_stopped(
    config, run, stop, tmp_path, loop, schedule
):
    stop(None)
    whole = changed(config, loop=loop, builder="build_student", batch_size=32, checkpoint_folder=None)
    expected = train(whole, run.fn_args(tmp_path))
    parallelism = {"stages": 2, "micro_batches": 4, "schedule": schedule}
    staged = changed(whole, parallelism=parallelism, checkpoint_folder=config.checkpoint_folder)
    stop(9)
    with pytest.raises(StoppedError):
        train(staged, run.fn_args(tmp_path))
    stop(None)
    network, card = train(staged, run.fn_args(tmp_path))
    for weights, other in zip(network.get_weights(), expected[0].get_weights(), strict=True):
        np.testing.assert_allclose(weights, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(card["history"]["loss"], expected[1]["history"]["loss"], rtol=1e-4)
