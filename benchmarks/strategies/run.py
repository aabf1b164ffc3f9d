"""Examples per second of every strategy, stragglers, and the time from a kill to training again.

  python -W ignore -m benchmarks.strategies.run [--rounds 3]

A teacher of digits (convolutional, batch 64) is trained by modules.training, as in a pipeline; the ways take
turns within a round. Workers are pinned to a core each. Prints the tables as Markdown.
"""

import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import typer

EPOCHS = 24
WARM_UP = 4  # epochs that trace and compile
KILL_AT_EPOCH = 3
# The straggler is stopped for this share of its time.
STOPPED_SHARE = 0.5
PERIOD_SECONDS = 0.2

WORKERS = {"workers": 2}
WAYS = {
    "bare Keras fit, one device": None,
    **{
        f"{name}, {loop}": {"strategy": {"name": name, **options}, "loop": loop}
        for name, options in (
            ("one_device", {}),
            ("mirrored", {"devices": 2}),
            ("central_storage", {"devices": 2}),
            ("multi_worker_mirrored", WORKERS | {"parameter_servers": None}),
            ("parameter_server", WORKERS | {"parameter_servers": 1}),
        )
        for loop in ("fit", "custom")
    },
    "multi_worker_mirrored, 1 worker": {
        "strategy": {"name": "multi_worker_mirrored", "workers": 1, "parameter_servers": None},
        "loop": "custom",
    },
    "parameter_server, 1 worker": {
        "strategy": {"name": "parameter_server", "workers": 1, "parameter_servers": 1},
        "loop": "custom",
    },
    "multi_worker_mirrored, straggler": {
        "strategy": {"name": "multi_worker_mirrored", "workers": 2, "parameter_servers": None},
        "loop": "custom",
        "straggler": True,
    },
    "parameter_server, straggler": {
        "strategy": {"name": "parameter_server", "workers": 2, "parameter_servers": 1},
        "loop": "custom",
        "straggler": True,
    },
}
KILLS = {
    "multi_worker_mirrored, worker": ("multi_worker_mirrored", "worker"),
    "parameter_server, worker": ("parameter_server", "worker"),
    "parameter_server, parameter server": ("parameter_server", "ps"),
}


class Epochs(logging.Handler):
    """Notes when epochs end; calls `action` once at the end of an epoch."""

    def __init__(self, at: int | None = None, action=None):
        super().__init__()
        self.ends: list[float] = []
        self.acted = 0.0
        self._at, self._action = at, action

    def emit(self, record: logging.LogRecord) -> None:
        """Handles one log record."""
        done = getattr(record, "epoch_done", None)
        if done:
            self.ends.append(time.perf_counter())
            if self._at == done["epoch"] and not self.acted:
                self.acted = time.perf_counter()
                self._action()


def tasks() -> list[tuple[str, int, psutil.Process]]:
    """Returns type, index and process of every process of the cluster."""
    found = []
    for process in psutil.Process().children():
        if "stillhouse.modules.training.member" in process.cmdline():
            task = json.loads(process.environ()["TF_CONFIG"])["task"]
            found.append((task["type"], task["index"], process))
    return found


def pin_and_slow_down(count: int, straggler: bool, end: threading.Event) -> None:
    """Pins workers to a core each as soon as all `count` processes are there; stops worker 1 half of the time."""
    found = []
    while len(found) < count and not end.wait(0.5):
        found = tasks()
    workers = {index: process for kind, index, process in found if kind == "worker"}
    for index, process in workers.items():
        process.cpu_affinity([index % psutil.cpu_count()])
    while straggler and not end.wait(PERIOD_SECONDS * (1 - STOPPED_SHARE)):
        try:
            workers[1].suspend()
            end.wait(PERIOD_SECONDS * STOPPED_SHARE)
            workers[1].resume()
        except psutil.NoSuchProcess:
            return


def training(folder: Path, work: Path, way: dict, epochs: int):
    """Returns the arguments of run_fn for one training."""
    from benchmarks.distillation import experiment as ex

    settings = ex.load_settings(ex.REPOSITORY / "pipelines" / "examples" / "digits.yaml")
    (graph,) = (folder / "digits" / "artifacts" / "Transform" / "transform_graph").iterdir()
    (examples,) = (folder / "digits" / "artifacts" / "Transform" / "transformed_examples").iterdir()
    split, evaluation = ex.Split(examples / "Split-train"), ex.Split(examples / "Split-eval")
    task = ex.Task(
        settings, ex.dag_below(settings, folder / settings.name), graph, split, evaluation, split, evaluation
    )
    changes = {name: value for name, value in way.items() if name != "straggler"}
    changes |= {"epochs": epochs, "checkpoint_folder": str(work / "checkpoints")}
    config = ex.config_of(task, settings.teachers[0], "teacher", 1, **changes)
    arguments = ex.fn_args(task, split)
    arguments.serving_model_dir, arguments.model_run_dir = str(work / "model"), str(work / "run")
    arguments.custom_config = config.model_dump(mode="json")
    return arguments


def bare(folder: Path, work: Path) -> list[float]:
    """Trains the same network by plain Keras on the same files and returns when epochs ended."""
    import tensorflow as tf
    import tensorflow_transform as tft
    import tf_keras as keras

    from stillhouse.modules.models.task import build_model
    from stillhouse.modules.training.config import TrainingConfig
    from stillhouse.modules.training.plan import MAX_STEPS_PER_EXECUTION

    arguments = training(folder, work, {"strategy": {"name": "one_device"}}, EPOCHS)
    config = TrainingConfig.model_validate(arguments.custom_config)
    spec = tft.TFTransformOutput(arguments.transform_graph_path).transformed_feature_spec()

    def parse(records):
        features = tf.io.parse_example(records, spec)
        return features, tf.reshape(features.pop(config.label), [-1])

    records = tf.data.TFRecordDataset(arguments.train_files, "GZIP").cache()
    count = sum(1 for _ in records)
    steps = -(-count // config.batch_size)
    batches = records.shuffle(10_000).batch(config.batch_size).repeat().map(parse, tf.data.AUTOTUNE)
    network = build_model(config.task, config.builder, config.hyperparameters)
    network.compile(
        keras.optimizers.Adam(config.optimizer.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=min(steps, MAX_STEPS_PER_EXECUTION),
    )
    ends = []
    noted = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    dataset = batches.prefetch(tf.data.AUTOTUNE)
    network.fit(dataset, epochs=EPOCHS, steps_per_epoch=steps, verbose=0, callbacks=[noted])
    return ends


def measure(folder: Path, name: str) -> dict[str, float]:
    """Trains in one way and returns the median seconds of an epoch."""
    from benchmarks.distillation import experiment as ex
    from stillhouse.modules import progress
    from stillhouse.modules.cluster.strategies import prepare_devices
    from stillhouse.modules.training.launch import run_fn

    ex.quiet()
    work, way = Path(tempfile.mkdtemp(dir=folder)), WAYS[name]
    if way is None:
        ends = bare(folder, work)
    else:
        strategy = way["strategy"]
        prepare_devices(strategy.get("devices") or 1)
        epochs, end = Epochs(), threading.Event()
        progress.LOGGER.setLevel(logging.INFO)
        progress.LOGGER.addHandler(epochs)
        servers = strategy.get("parameter_servers")
        processes = strategy.get("workers", 0) + (servers + 1 if servers else 0)
        helper = threading.Thread(target=pin_and_slow_down, args=(processes, way.get("straggler", False), end))
        helper.start()
        try:
            run_fn(training(folder, work, way, EPOCHS))
        finally:
            end.set()
            helper.join()
        ends = epochs.ends
    took = [after - before for before, after in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)]
    return {"epoch": statistics.median(took)}


def recover(folder: Path, name: str) -> dict[str, float]:
    """Kills one process and returns the seconds until an epoch is done that had not been done before."""
    from benchmarks.distillation import experiment as ex
    from stillhouse.modules import progress
    from stillhouse.modules.training.launch import run_fn

    ex.quiet()
    strategy, kind = KILLS[name]
    servers = 1 if strategy == "parameter_server" else None

    def kill():
        process = next(process for found, index, process in tasks() if (found, index) == (kind, 0))
        os.kill(process.pid, signal.SIGKILL)

    epochs = Epochs(KILL_AT_EPOCH, kill)
    progress.LOGGER.setLevel(logging.INFO)
    progress.LOGGER.addHandler(epochs)
    way = {
        "strategy": {"name": strategy, "workers": 2, "parameter_servers": servers},
        "loop": "custom",
        "checkpoints": {"every_steps": 10, "keep": 2},
    }
    run_fn(training(folder, Path(tempfile.mkdtemp(dir=folder)), way, 2 * EPOCHS))
    return {"seconds": next(end for end in epochs.ends if end > epochs.acted) - epochs.acted}


def child(folder: Path, what: str, name: str = "") -> dict:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.strategies.run", "--folder", str(folder)]
    done = subprocess.run([*command, "--what", what, "--name", name], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(rounds: int = 3, folder: Path | None = None, what: str | None = None, name: str = "") -> None:
    """Without `what`: prepares, measures every way in turn, prints the tables."""
    if what == "prepare":
        from benchmarks.distillation import experiment as ex

        ex.quiet()
        ex.prepare("digits", folder)
        print("{}")
    elif what:
        print(json.dumps((measure if what == "measure" else recover)(folder, name)))
    else:
        base = Path(tempfile.mkdtemp())
        try:
            run(base, rounds)
        finally:
            shutil.rmtree(base)


def run(base: Path, rounds: int) -> None:
    """Measures and prints."""
    child(base, "prepare")
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    recovered: dict[str, list[float]] = {name: [] for name in KILLS}
    for number in range(rounds):
        for name in WAYS:
            found[name].append(child(base, "measure", name)["epoch"])
            print(number, name, found[name][-1], file=sys.stderr, flush=True)
        for name in KILLS:
            recovered[name].append(child(base, "recover", name)["seconds"])
            print(number, name, recovered[name][-1], file=sys.stderr, flush=True)
    first = next(iter(WAYS))
    print(f"| method | epoch (ms), median | time relative to {first}, median (spread) |\n|---|---|---|")
    for name, times in found.items():
        ratios = [own / base_time for own, base_time in zip(times, found[first], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {1000 * statistics.median(times):.0f} | {spread} |")
    print("\n| killed | seconds until the next epoch is done, median (spread) |\n|---|---|")
    for name, times in recovered.items():
        print(f"| {name} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) |")


if __name__ == "__main__":
    typer.run(main)
