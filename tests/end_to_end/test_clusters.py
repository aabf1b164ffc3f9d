"""Trainings of several processes on this machine, and what happens when one of them dies by kill -9."""

import functools
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import tensorflow as tf
from artifacts import Artifacts, training_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tfx.components.trainer.fn_args_utils import FnArgs

from stillhouse.modules import progress
from stillhouse.modules.cluster.supervisor import HOST, free_ports
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.models.card import read_card
from stillhouse.modules.training.job import job_of
from stillhouse.modules.training.launch import run_fn
from stillhouse.modules.training.train import train

SYNCHRONOUS = {"name": "multi_worker_mirrored", "workers": 2, "parameter_servers": None}
ASYNCHRONOUS = {"name": "parameter_server", "workers": 2, "parameter_servers": 2}
STEPS = 15  # of an epoch: 457 examples, 31 in a batch
EVERY = 20


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture(autouse=True)
def task(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)
    yield
    assert not tasks(), "processes were left behind"


def tasks(of: int | None = None) -> dict[tuple[str, int], psutil.Process]:
    """Returns the processes of clusters that this process, or another one, started."""
    found = {}
    for process in psutil.Process(of).children():
        if "stillhouse.modules.training.member" in process.cmdline():
            name = re.search(r'"type": "(\w+)", "index": (\d+)', process.environ()["TF_CONFIG"])
            found[name[1], int(name[2])] = process
    return found


class Trained:
    """The outcome of a training by run_fn."""

    def __init__(self, arguments: FnArgs, notes: list[str], killed_after: list[int]):
        self.card = read_card(arguments.serving_model_dir)
        self.notes = notes
        self.killed_after = killed_after  # epochs
        model = tf.saved_model.load(arguments.serving_model_dir)
        self.weights = [variable.numpy() for variable in model.network.trainable_variables]


class Watch(logging.Handler):
    """Does things when epochs are done, each once, and keeps the notes."""

    def __init__(self, actions: dict[int, Callable[[], None]]):
        super().__init__(logging.INFO)
        self.notes, self._actions = [], dict(actions)

    def emit(self, record):
        if hasattr(record, "note") and "cache: " not in record.note:
            self.notes.append(record.note)
        done = getattr(record, "epoch_done", None)
        # One at a time: what is started anew reports epochs that were done before.
        epoch = min(self._actions, default=None)
        if done and epoch is not None and done["epoch"] >= epoch:
            self._actions.pop(epoch)()


def train_in_cluster(run, folder, strategy, kill=(), train_files=None, by=signal.SIGKILL, **changes) -> Trained:
    """Trains, and kills (or stops) the tasks `kill`, one after another, each in a random epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"batch_size": 31, "checkpoint_folder": str(folder / "checkpoints")} | changes
    config = training_config(run, True, strategy=strategy, **settings)
    arguments = run.fn_args(folder)
    arguments.train_files = train_files or arguments.train_files
    arguments.custom_config = config.model_dump(mode="json")
    # Apart, so that what was killed is back before the next is.
    part = (config.epochs - 4) // max(1, len(kill))
    epochs = [3 + number * part + random.randint(0, max(0, part - 4)) for number in range(len(kill))]
    actions = {
        epoch: functools.partial(lambda task: os.kill(tasks()[task].pid, by), task)
        for epoch, task in zip(epochs, kill, strict=True)
    }
    watch = Watch(actions)
    progress.LOGGER.addHandler(watch)
    progress.LOGGER.setLevel(logging.INFO)
    try:
        run_fn(arguments)
    finally:
        progress.LOGGER.removeHandler(watch)
    return Trained(arguments, watch.notes, epochs)


@pytest.mark.soak
@pytest.mark.parametrize(("loop", "targets"), [("fit", "cached"), ("custom", "online")])
def test_two_workers_give_the_weights_of_one_device(run, tmp_path, loop, targets):
    changes = {"loop": loop}
    if targets == "online":
        changes |= {"soft_targets": None, "teachers": [str(path / "Format-Serving") for path in run.teachers()]}
    alone, card = train(training_config(run, True, batch_size=31, **changes), run.fn_args(tmp_path))
    found = train_in_cluster(run, tmp_path, SYNCHRONOUS, **changes)
    assert (found.card["replicas"], found.card["restarts"]) == (2, 0)
    assert_same(found, card["history"]["loss"], alone.get_weights())


def assert_same(found: Trained, losses: list[float], weights: list[np.ndarray]) -> None:
    np.testing.assert_allclose(found.card["history"]["loss"], losses, rtol=1e-5)
    for ours, theirs in zip(found.weights, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.soak
def test_workers_that_share_the_files_read_their_own_ones_and_train_as_well(run, tmp_path):
    (whole,) = (run.examples / "Split-train").iterdir()
    records = list(tf.data.TFRecordDataset(str(whole), "GZIP").as_numpy_iterator())
    (tmp_path / "train").mkdir()
    for part in range(3):  # worker 0 has two of them
        with tf.io.TFRecordWriter(str(tmp_path / "train" / f"{part}.gz"), "GZIP") as writer:
            for record in records[part::3]:
                writer.write(record)
    files = [str(tmp_path / "train" / "*")]
    hard = {"distillation": None, "soft_targets": None, "ingestion": {"sharding": "file"}, "epochs": 10}
    found = train_in_cluster(run, tmp_path, SYNCHRONOUS, train_files=files, **hard)
    assert found.card["train_examples"] == len(records)
    assert found.card["updates"] == 10 * STEPS
    assert found.card["history"]["accuracy"][-1] > 0.85


LONG = {"epochs": 30, "checkpoints": {"every_steps": EVERY, "keep": 2}}


def assert_resumed(found: Trained, index: int) -> None:
    assert found.card["restarts"] == 1
    assert found.notes[0].startswith(f"Student: worker {index}: ended by SIGKILL; restarting")
    resumed = int(re.search(r"resuming at step (\d+) of 450", found.notes[1])[1])
    # The epoch that was done when the worker was killed, less the interval and a call of the compiled loop.
    assert resumed >= found.killed_after[0] * STEPS - EVERY - STEPS


@pytest.mark.soak
def test_a_killed_worker_costs_no_more_than_a_checkpoint_interval_and_changes_nothing(run, tmp_path):
    alone, card = train(training_config(run, True, batch_size=31, **LONG), run.fn_args(tmp_path))
    found = train_in_cluster(run, tmp_path / "cluster", SYNCHRONOUS, kill=[("worker", 1)], **LONG)
    assert_resumed(found, 1)
    assert_same(found, card["history"]["loss"], alone.get_weights())


@pytest.mark.soak
@pytest.mark.parametrize(("loop", "index"), [("fit", 1), ("custom", 0)])
def test_a_killed_worker_changes_no_random_numbers(run, tmp_path, loop, index):
    """Dropout differs between the workers, so the reference is a cluster too."""
    dropout = LONG | {"builder": "build_with_dropout"}
    undisturbed = train_in_cluster(run, tmp_path / "undisturbed", SYNCHRONOUS, **dropout)
    found = train_in_cluster(run, tmp_path, SYNCHRONOUS, kill=[("worker", index)], loop=loop, **dropout)
    assert_resumed(found, index)
    assert found.card["history"].keys() == undisturbed.card["history"].keys()
    assert_same(found, undisturbed.card["history"]["loss"], undisturbed.weights)


@pytest.mark.soak
def test_a_worker_that_stands_still_is_killed_and_changes_nothing(run, tmp_path):
    alone, card = train(training_config(run, True, batch_size=31, **LONG), run.fn_args(tmp_path))
    changes = LONG | {"restarts": {"heartbeat_seconds": 10}}
    found = train_in_cluster(run, tmp_path, SYNCHRONOUS, kill=[("worker", 1)], by=signal.SIGSTOP, **changes)
    assert found.card["restarts"] == 1
    assert found.notes[0].startswith("Student: worker 1: no heartbeat for 10 s; restarting from the last checkpoint")
    assert any("resuming at step" in note for note in found.notes)
    assert_same(found, card["history"]["loss"], alone.get_weights())


@pytest.mark.parametrize(
    ("kill", "loop"),
    [
        ([("worker", 1), ("ps", 0), ("chief", 0)], "custom"),
        pytest.param([("worker", 1)], "fit", marks=pytest.mark.soak),
        pytest.param([("chief", 0), ("ps", 1)], "fit", marks=pytest.mark.soak),
    ],
    ids=["each-in-turn-custom", "worker-fit", "chief-ps-fit"],
)
def test_an_asynchronous_training_replaces_a_worker_and_goes_on_from_a_checkpoint_without_the_others(
    run, tmp_path, kill, loop
):
    epochs = 10 + 10 * len(kill)
    found = train_in_cluster(
        run,
        tmp_path,
        ASYNCHRONOUS,
        kill=kill,
        loop=loop,
        epochs=epochs,
        builder="build_wide",
        checkpoints={"every_steps": EVERY, "keep": 2},
        optimizer={"name": "adam", "learning_rate": 0.001, "schedule": "cosine"},
    )
    assert found.card["replicas"] == 2
    assert found.card["restarts"] == len(kill)
    assert len(found.card["history"]["loss"]) == epochs
    assert max(found.card["history"]["staleness"]) > 0
    assert min(found.card["history"]["updates_per_second"]) > 0
    # Both kernels of the wide network are larger than two shards.
    assert [weights.shape for weights in found.weights] == [(4, 45_000), (45_000,), (45_000, 3), (3,)]
    assert found.card["history"]["accuracy"][-1] > 0.85
    # An update whose worker dies before it could say that it is done is done again, by another worker.
    assert epochs * STEPS <= found.card["updates"] <= epochs * STEPS + len(kill)
    replaced = "Student: worker 1: ended by SIGKILL; replacing it while the others continue"
    assert sum(note.startswith(replaced) for note in found.notes) == kill.count(("worker", 1))
    resumed = [number for number, note in enumerate(found.notes) if "resuming at step" in note]
    assert len(resumed) == len(kill) - kill.count(("worker", 1))
    if kill[0] == ("worker", 1):  # the first note
        assert found.notes[0].startswith(replaced)
    assert sum("restarting from the last checkpoint" in note for note in found.notes) == len(resumed)


@contextmanager
def one_core(seconds: int):
    """Everything that is started has one core, and `seconds` to end."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})

    def end(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        os.sched_setaffinity(0, allowed)


@pytest.mark.soak
def test_replicas_of_stages_train_the_network_in_one_piece_also_when_one_is_killed(run, tmp_path):
    """Killed in a random epoch; what was done since the last checkpoint is done again, with the same outcome."""
    one_device = {"name": "one_device"}
    changes = {"epochs": 20, "batch_size": 32, "checkpoints": {"every_steps": EVERY, "keep": 2}}
    alone, card = train(training_config(run, True, **changes), run.fn_args(tmp_path))
    parallelism = {"stages": 2, "replicas": 2, "micro_batches": 4, "schedule": "1f1b", "processes": True}
    found = train_in_cluster(run, tmp_path, one_device, kill=[("stage", 3)], parallelism=parallelism, **changes)
    assert (found.card["restarts"], found.card["replicas"]) == (1, 2)
    assert any(re.search(r"stage 3: ended by SIGKILL; restarting from the last checkpoint", n) for n in found.notes)
    assert any("resuming at step" in note for note in found.notes)
    assert any("measured step: stages busy" in note for note in found.notes)
    assert (tmp_path / "model_run" / "timeline.svg").stat().st_size > 10_000
    memory, alone_memory = found.card["memory"], card["memory"]["bytes"]["a replica"]
    assert set(memory["peak_mb"]) == {"chief 0", *(f"stage {number}" for number in range(4))}
    assert all(peak > 100 for peak in memory["peak_mb"].values())
    of_stages = memory["bytes"].values()
    assert sum(kinds["parameters"] for kinds in of_stages) == alone_memory["parameters"]
    np.testing.assert_allclose(found.card["history"]["loss"], card["history"]["loss"], rtol=1e-4)
    for ours, theirs in zip(found.weights, alone.trainable_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_training_in_16_bits_leaves_a_network_in_32(run, tmp_path):
    """Trained as that in 32 bits is, as far as 16 bits go."""
    alone, card = train(training_config(run, True), run.fn_args(tmp_path))
    memory = {"micro_batches": 2, "rematerialise": "auto"}
    config = training_config(run, True, precision="mixed_bfloat16", memory=memory)
    found, of_16 = train(config, run.fn_args(tmp_path))
    assert {layer.compute_dtype for layer in found.layers} == {"float32"}
    np.testing.assert_allclose(of_16["history"]["loss"], card["history"]["loss"], rtol=0.02)
    for ours, theirs in zip(found.trainable_weights, alone.trainable_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.05)
    events = sorted((tmp_path / "model_run").glob("events.out.tfevents.*"))
    shown = EventAccumulator(str(events[-1])).Reload()
    losses = [float(tf.make_ndarray(one.tensor_proto)) for one in shown.Tensors("loss")]
    np.testing.assert_allclose(losses, of_16["history"]["loss"], rtol=1e-6)
    assert [one.step for one in shown.Tensors("soft_loss")] == [1, 2, 3]
    assert "_hparams_/session_start_info" in shown.PluginTagToContent("hparams")
    assert of_16["memory"]["peak_mb"]["process"] >= of_16["memory"]["peak_mb"]["before"] > 100


@pytest.mark.soak
def test_workers_with_one_core_each_do_not_hang_while_they_wait_for_shared_input(run, tmp_path):
    with one_core(seconds=240):
        found = train_in_cluster(run, tmp_path, ASYNCHRONOUS, loop="custom", epochs=3)
    assert found.card["updates"] == 3 * STEPS


FAILING = """
import tensorflow as tf
import tf_keras as keras
from blobs_task import *


class Broken(keras.layers.Layer):
    def call(self, inputs):
        with tf.control_dependencies([tf.debugging.assert_less(inputs, -100.0, message="the pump is broken")]):
            return tf.identity(inputs)


def build_student():
    features = keras.Input([4], name="features")
    return keras.Model(features, keras.layers.Dense(3)(Broken()(features)))
"""


@pytest.mark.soak
def test_a_job_that_fails_again_and_again_ends_with_its_first_real_error(run, tmp_path, monkeypatch):
    (tmp_path / "failing_task.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineError, match=r"failed 2 times; restarts.most is 1; .*the pump is broken"):
        train_in_cluster(run, tmp_path, SYNCHRONOUS, task="failing_task", restarts={"most": 1, "back_off_seconds": 0.1})


def test_a_mistake_of_the_users_ends_a_job_at_once(run, tmp_path):
    with pytest.raises(UserError, match="batch_size: found 1; expected at least 2, one per replica"):
        train_in_cluster(run, tmp_path, SYNCHRONOUS, batch_size=1)


def test_a_process_that_finds_tf_config_joins_that_cluster_and_chooses_its_cache_itself(run, tmp_path):
    config = training_config(run, False, strategy={"name": "multi_worker_mirrored", "workers": 1}, epochs=1)
    arguments = run.fn_args(tmp_path)
    job = tmp_path / "job.json"
    job.write_text(json.dumps(job_of(config, arguments).run))
    cluster = {"worker": [f"{HOST}:{port}" for port in free_ports(1)]}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}),
    }
    member = [sys.executable, "-m", "stillhouse.modules.training.member", job]
    subprocess.run(member, env=environment, check=True)
    assert read_card(arguments.serving_model_dir)["cache"] == "memory"


def test_nothing_is_left_when_the_supervisor_is_killed(run, trained, tmp_path):
    config = training_config(run, True, strategy=SYNCHRONOUS, epochs=100_000)
    arguments = run.fn_args(tmp_path)
    arguments.custom_config = config.model_dump(mode="json")
    (tmp_path / "supervise.py").write_text(
        "import logging\n"
        "from types import SimpleNamespace\n"
        "from stillhouse.modules.training.launch import run_fn\n"
        "logging.basicConfig(level=logging.INFO)\n"
        f"run_fn(SimpleNamespace(train_files={arguments.train_files}, eval_files={arguments.eval_files},"
        f"transform_graph_path={arguments.transform_graph_path!r}, serving_model_dir={arguments.serving_model_dir!r},"
        f"model_run_dir={arguments.model_run_dir!r}, base_model=None, custom_config={arguments.custom_config}))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (tmp_path / "output").open("w") as output:
        supervisor = subprocess.Popen([sys.executable, tmp_path / "supervise.py"], env=environment, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and "epoch 1/" not in (tmp_path / "output").read_text():
            time.sleep(0.2)
        started = tasks(supervisor.pid)
        assert len(started) == 2, (tmp_path / "output").read_text()
    finally:
        supervisor.kill()
        supervisor.wait()
    _, alive = psutil.wait_procs(started.values(), timeout=20)
    assert not alive
