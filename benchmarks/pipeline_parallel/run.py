"""Throughput of a network in K stages, each a process pinned to a core, against one such process.

  python -W ignore -m benchmarks.pipeline_parallel.run [--rounds 3]

Eight dense layers of width 1024 (tanh), batch 1024, M micro-batches; the loss and its gradients, no optimiser, as
modules.large_models.pipeline runs them. Every process has one thread for an operation and --threads between them. A
round has a cluster for each M and K, within which the schedules take turns. The bound is that of GPipe's schedule
without any cost of passing tensors on: M K / (M + K - 1). Prints Markdown.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import psutil
import typer

LAYERS, WIDTH, BATCH = 8, 1024, 1024
STAGES, SCHEDULES = (1, 2), ("gpipe", "1f1b")
WARM_UP, STEPS = 2, 5
# On two devices, normalised to M = 1: GPipe (Huang et al. 2019) table 2, AmoebaNet-D; torchgpipe (Kim et al. 2020).
PUBLISHED = {"GPipe, AmoebaNet-D": {1: 1.0, 4: 1.07, 32: 1.21}, "torchgpipe, AmoebaNet-D": {1: 1.0, 4: 1.54, 32: 1.77}}
THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def serve() -> None:
    """Is a stage."""
    from modules.cluster.members import serve
    from modules.strategies import tf_config

    serve(tf_config())


def measure(stages: int, micro_batches: list[int]) -> dict[str, float]:
    """Trains as the chief of a cluster; returns the median seconds of a step by schedule and M."""
    import numpy as np
    import tensorflow as tf
    import tf_keras as keras

    import pipelines  # noqa: F401  selects tf_keras before TensorFlow is imported
    from modules.large_models.parallelism import Parallelism, stage_devices
    from modules.large_models.pipeline import Pipeline

    devices = stage_devices(Parallelism(stages=stages, processes=True))
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

    def make(schedule: str, micro_batches: int):
        places = [per_stage * stage for stage in range(1, stages)]
        pipeline = Pipeline(network, places, devices, micro_batches, schedule)

        @tf.function
        def step(inputs, labels):
            gradients, totals = pipeline.gradients(inputs, labels, loss_of, variables)
            return totals["loss"], [tf.reduce_sum(one[0]) for one in gradients]

        return step

    steps = {(schedule, number): make(schedule, number) for schedule in SCHEDULES for number in micro_batches}
    took: dict[str, list[float]] = {}
    for turn in range(WARM_UP + STEPS):
        for (schedule, number), step in steps.items():
            began = time.perf_counter()
            loss, gradients = step(inputs, labels)
            _ = [float(loss), *(float(one) for one in gradients)]
            if turn >= WARM_UP:
                took.setdefault(f"{schedule} {number}", []).append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def run_cluster(stages: int, threads: int, micro_batches: str) -> dict[str, float]:
    """Starts a chief and its stages, each stage pinned to a core, and returns what the chief has measured."""
    from modules.cluster.supervisor import HOST, free_ports

    ports = free_ports(stages + 1)
    addresses = {"chief": [f"{HOST}:{ports[0]}"], "stage": [f"{HOST}:{port}" for port in ports[1:]]}

    def start(kind: str, index: int, *arguments: str) -> subprocess.Popen:
        task = {"cluster": addresses, "task": {"type": kind, "index": index}}
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.pipeline_parallel.run", *arguments],
            env=os.environ | THREADS | {"TF_CONFIG": json.dumps(task), "TF_NUM_INTEROP_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            text=True,
        )

    servers = [start("stage", index, "--role", "serve") for index in range(stages)]
    try:
        for index, server in enumerate(servers):
            psutil.Process(server.pid).cpu_affinity([index % psutil.cpu_count()])
        chief = start("chief", 0, "--role", f"chief-{stages}", "--micro-batches", micro_batches)
        told, _ = chief.communicate()
        if chief.returncode:
            raise SystemExit(chief.returncode)
        return json.loads(told.splitlines()[-1])
    finally:
        for server in servers:
            server.kill()
            server.wait()
            server.stdout.close()


def main(rounds: int = 3, micro_batches: str = "1,2,4,8,32", threads: int = 3, role: str = "") -> None:
    """Measures, or is one of the processes."""
    numbers = [int(number) for number in micro_batches.split(",")]
    if role == "serve":
        serve()
        return
    if role:
        print(json.dumps(measure(int(role.partition("-")[2]), numbers)))
        return
    found: dict[int, list[dict[str, float]]] = {stages: [] for stages in STAGES}
    for _ in range(rounds):
        for stages in STAGES:
            found[stages].append({})
        for number in numbers:
            for stages in STAGES:
                found[stages][-1] |= run_cluster(stages, threads, str(number))
    names = "".join(f" K = {STAGES[-1]}, {schedule} |" for schedule in SCHEDULES)
    print(f"| M | K = 1, ms |{names} bound | {' | '.join(PUBLISHED)} (against M = 1) |")
    print("|" + "---|" * (3 + len(SCHEDULES) + len(PUBLISHED)))
    for number in numbers:
        cells = [f"{statistics.median(one[f'gpipe {number}'] for one in found[1]) * 1000:.0f}"]
        for schedule in SCHEDULES:
            ratios = sorted(
                alone[f"gpipe {number}"] / staged[f"{schedule} {number}"]
                for alone, staged in zip(found[1], found[STAGES[-1]], strict=True)
            )
            cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        bound = number * STAGES[-1] / (number + STAGES[-1] - 1)
        published = [f"{of[number]:.2f}" if number in of else "" for of in PUBLISHED.values()]
        print(f"| {number} | {' | '.join([*cells, f'{bound:.2f}', *published])} |")


if __name__ == "__main__":
    typer.run(main)
