"""Throughput of a network in K stages, each a process pinned to a core, against one such process.

  python -W ignore -m benchmarks.pipeline_parallel.run [--rounds 3] [--peer PYTHON]

Eight dense layers of width 1024 (tanh), batch 1024, M micro-batches; the loss and its gradients, no optimiser, as
modules.large_models.pipeline runs them. Every process has one thread for an operation and --threads between them. A
round has a cluster for each M and K, within which the schedules take turns. The bound is that of GPipe's schedule
without any cost of passing tensors on: M K / (M + K - 1). --peer names the Python of an environment with PyTorch
(peers.txt), which is measured in the same turns. Prints Markdown.
"""

import json
import os
import statistics
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from benchmarks.stage_processes import run_chief

LAYERS, WIDTH, BATCH = 8, 1024, 1024
STAGES, SCHEDULES = (1, 2), ("gpipe", "1f1b")
WARM_UP, STEPS = 2, 5
# On two devices, normalised to M = 1: GPipe (Huang et al. 2019) table 2, AmoebaNet-D; torchgpipe (Kim et al. 2020).
PUBLISHED = {"GPipe, AmoebaNet-D": {1: 1.0, 4: 1.07, 32: 1.21}, "torchgpipe, AmoebaNet-D": {1: 1.0, 4: 1.54, 32: 1.77}}


def measure(stages: int, micro_batches: list[int], clocked: bool = False) -> dict[str, Any]:
    """Trains as the chief of a cluster.

    Returns:
      The median seconds of a step by schedule and M, or, clocked, {schedule: [modules.large_models.timeline.Timed as a
      dict, ...]} of a step.
    """
    import numpy as np
    import tensorflow as tf
    import tf_keras as keras

    from stillhouse.modules.cluster.spec import cluster_from
    from stillhouse.modules.large_models.parallelism import stage_devices
    from stillhouse.modules.large_models.pipeline import Pipeline
    from stillhouse.modules.large_models.timeline import clock
    from stillhouse.modules.settings import Parallelism

    (devices,) = stage_devices(Parallelism(stages=stages, processes=True), cluster_from(os.environ))
    keras.utils.set_random_seed(1)
    features = hidden = keras.Input([WIDTH], name="features")
    per_stage = LAYERS // stages
    for number in range(LAYERS):
        layer = keras.layers.Dense(WIDTH, activation="tanh")
        with tf.device(devices[number // per_stage]):
            hidden = layer(hidden)
    network = keras.Model(features, hidden)
    x = np.random.RandomState(0).normal(size=(BATCH, WIDTH)).astype(np.float32)
    with tf.device(devices[0]):
        inputs = {"features": tf.constant(x)}
    with tf.device(devices[-1]):
        labels = tf.constant(x[:, ::-1].copy())
    variables = network.trainable_variables

    def loss_of(output, part):
        loss = tf.reduce_sum(tf.square(output - part)) / BATCH
        return loss, {"loss": loss}

    def pipeline_of(schedule: str, micro_batches: int) -> Pipeline:
        cut_indices = [per_stage * stage for stage in range(1, stages)]
        return Pipeline(network, cut_indices, [devices], micro_batches, schedule)

    if clocked:
        (number,) = micro_batches
        return {
            schedule: [
                asdict(one) for one in clock(pipeline_of(schedule, number), inputs, labels, loss_of, variables, WARM_UP)
            ]
            for schedule in SCHEDULES
        }

    def make(schedule: str, micro_batches: int):
        pipeline = pipeline_of(schedule, micro_batches)

        def step(inputs, labels):
            gradients, totals = pipeline.gradients(inputs, labels, loss_of, variables)
            return totals, [tf.reduce_sum(one[0]) for one in gradients]

        return tf.function(step)

    steps = {(schedule, number): make(schedule, number) for schedule in SCHEDULES for number in micro_batches}
    took: dict[str, list[float]] = {}
    for turn in range(WARM_UP + STEPS):
        for (schedule, number), step in steps.items():
            began = time.perf_counter()
            totals, gradients = step(inputs, labels)
            _ = [float(totals["loss"]), *(float(one) for one in gradients)]
            if turn >= WARM_UP:
                took.setdefault(f"{schedule} {number}", []).append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def run_cluster(stages: int, threads: int, micro_batches: str, *options: str) -> dict[str, Any]:
    """Returns what the chief of a cluster with these stages has measured."""
    arguments = ["--stages", str(stages), "--micro-batches", micro_batches, *options]
    told, _ = run_chief("benchmarks.pipeline_parallel.run", stages, arguments, {"TF_NUM_INTEROP_THREADS": str(threads)})
    return told


def run_peer(python: str, stages: int, number: int) -> dict[str, float]:
    """Returns the seconds of a step by PyTorch, by schedule and M."""
    found = {}
    for schedule in SCHEDULES[: 1 if stages == 1 else None]:
        if schedule == "1f1b" and number < stages:  # which PyTorch refuses
            continue
        command = [python, str(Path(__file__).with_name("peer.py")), "--stages", str(stages)]
        command += ["--micro-batches", str(number), "--schedule", schedule]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[f"{schedule} {number}"] = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return found


def main(
    rounds: int = 3,
    micro_batches: str = "1,2,4,8,32",
    threads: int = 3,
    peer: str = "",
    stages: int = 0,
    clocked: bool = False,
) -> None:
    """Measures; with `stages`, as the chief of a cluster."""
    numbers = [int(number) for number in micro_batches.split(",")]
    if stages:
        print(json.dumps(measure(stages, numbers, clocked)))
        return
    found: dict[int, list[dict[str, float]]] = {count: [] for count in STAGES}
    of_peer: dict[int, list[dict[str, float]]] = {count: [] for count in STAGES}
    for _ in range(rounds):
        for count in STAGES:
            found[count].append({})
            of_peer[count].append({})
        for number in numbers:
            for count in STAGES:
                found[count][-1] |= run_cluster(count, threads, str(number))
                if peer:
                    of_peer[count][-1] |= run_peer(peer, count, number)
    print_table(numbers, found, of_peer if peer else None)


def ratios(found: dict[int, list[dict[str, float]]], schedule: str, number: int) -> str:
    """Returns how much faster K stages are than one, the median and the spread over the rounds."""
    name = f"{schedule} {number}"
    pairs = zip(found[1], found[STAGES[-1]], strict=True)
    values = sorted(alone[f"gpipe {number}"] / staged[name] for alone, staged in pairs if name in staged)
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})" if values else ""


def print_table(numbers: list[int], found: dict, of_peer: dict | None) -> None:
    """Prints a row for each M."""
    columns = [f"K = {STAGES[-1]}, {schedule}" for schedule in SCHEDULES]
    heads = ["M", "K = 1, ms", *columns, "bound", *([f"PyTorch, {column}" for column in columns] if of_peer else [])]
    heads += [f"{name} (against M = 1)" for name in PUBLISHED]
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    for number in numbers:
        alone = statistics.median(one[f"gpipe {number}"] for one in found[1]) * 1000
        cells = [f"{alone:.0f}", *(ratios(found, schedule, number) for schedule in SCHEDULES)]
        cells.append(f"{number * STAGES[-1] / (number + STAGES[-1] - 1):.2f}")
        if of_peer:
            cells += [ratios(of_peer, schedule, number) for schedule in SCHEDULES]
        cells += [f"{of[number]:.2f}" if number in of else "" for of in PUBLISHED.values()]
        print(f"| {number} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
