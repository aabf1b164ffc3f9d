"""Strategies of one process; those of several are in tests/end_to_end/test_clusters.py."""

import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, training_config

from stillhouse.modules.cluster.strategies import make_strategy, resolve_auto
from stillhouse.modules.cluster.supervisor import gpus_of
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Strategy
from stillhouse.modules.training.checks import check_batches
from stillhouse.modules.training.train import train


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture
def task(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)


@pytest.mark.parametrize(
    "distilled", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["distilled", "hard labels"]
)
def test_strategies_and_loops_give_the_weights_of_one_device(run, task, tmp_path, distilled):
    """457 examples in batches of 31: the last batch is partial, and the halves of all of them differ."""
    found = {}
    for loop in ("fit", "custom"):
        for name, devices in (("one_device", None), ("mirrored", 2), ("central_storage", 2)):
            strategy = {"name": name, "devices": devices}
            optimizer = {"name": "adam", "learning_rate": 0.01, "schedule": "cosine"}
            settings = {"strategy": strategy, "loop": loop, "optimizer": optimizer, "batch_size": 31, "epochs": 2}
            config = training_config(run, distilled, **settings)
            network, card = train(config, run.fn_args(tmp_path))
            assert card["replicas"] == (devices or 1)
            found[loop, name] = network.get_weights(), card["history"]["loss"]
    weights, losses = found.pop(("fit", "one_device"))
    for other_weights, other_losses in found.values():
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        for ours, theirs in zip(other_weights, weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mirrored", pytest.param("central_storage", marks=pytest.mark.soak)])
def test_networks_with_dropout_are_trained_on_replicas(run, task, tmp_path, name):
    strategy = {"name": name, "devices": 2}
    config = training_config(run, True, strategy=strategy, builder="build_with_dropout", epochs=10)
    _, card = train(config, run.fn_args(tmp_path))
    assert card["history"]["accuracy"][-1] > 0.6


def test_networks_of_different_shapes_are_mirrored_in_one_process(run, task, tmp_path):
    for units in (3, 7):
        config = training_config(
            run, False, strategy={"name": "mirrored", "devices": 2}, hyperparameters={"units": units}, epochs=1
        )
        network, _ = train(config, run.fn_args(tmp_path))
        assert network.count_params() == 5 * units + 3 * (units + 1)


def test_auto_takes_one_device_where_there_is_no_other():
    assert resolve_auto() == "one_device"
    assert make_strategy(Strategy(name="auto")).num_replicas_in_sync == 1


@pytest.mark.parametrize("tpu", [None, "my-tpu", "grpc://127.0.0.1:1"])
def test_a_tpu_that_is_not_there_is_a_sentence(tpu):
    with pytest.raises(UserError, match="TPU .*was not found; set strategy.tpu, or another"):
        make_strategy(Strategy(name="tpu", tpu=tpu))


def test_a_tpu_gets_batches_of_one_size(run):
    class EightCores(tf.distribute.TPUStrategy):
        num_replicas_in_sync = 8

        def __init__(self):
            pass

    strategy = EightCores()
    with pytest.raises(UserError, match="batch_size: found 31; expected a multiple of 8 .TPU cores."):
        check_batches(training_config(run, False, batch_size=31), strategy, 100)
    with pytest.raises(UserError, match="batch_size: found 32; expected at most 30 on a TPU"):
        check_batches(training_config(run, False, batch_size=32), strategy, 30)


def test_more_replicas_than_examples_in_a_batch_are_refused(run, task, tmp_path):
    config = training_config(run, False, strategy={"name": "mirrored", "devices": 2}, batch_size=1)
    with pytest.raises(UserError, match="batch_size: found 1; expected at least 2, one per replica"):
        train(config, run.fn_args(tmp_path))


def test_a_strategy_of_processes_needs_a_cluster():
    with pytest.raises(UserError, match="parameter_server needs a cluster; found no TF_CONFIG"):
        make_strategy(Strategy(name="parameter_server"))


def test_workers_share_the_gpus_of_a_machine():
    assert [gpus_of(index, 2, 4) for index in range(2)] == ["0,1", "2,3"]
    assert gpus_of(1, 2, 1) == ""
