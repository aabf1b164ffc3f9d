"""Step time and peak memory of a plain training, and of one with accumulation and rematerialisation.

  python -W ignore -m benchmarks.memory.run [--rounds 5]

A chain of equal blocks (x + Dense(width)(Dense(4 width)(x)), as a transformer has them), trained by Learner on one
batch. Each measurement is a process of its own, of which VmHWM is the peak; the ways take turns within a round. The
memory of activations is the peak less that of the plain training of a batch of one example. Prints Markdown.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import typer

BLOCKS, WIDTH, BATCH, STEPS = 36, 128, 4096, 4
WAYS = {
    "plain, one example": {},
    "plain": {},
    "accumulated, 4 micro-batches": {"micro_batches": 4},
    "rematerialised, each block": {"rematerialise": [f"block_{number}" for number in range(1, BLOCKS)]},
    "rematerialised, auto": {"rematerialise": "auto"},
    "accumulated and rematerialised": {"micro_batches": 4, "rematerialise": "auto"},
}
# Freed memory goes back at once, so that the peak is that of what lives at a time.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "TF_CPP_MIN_LOG_LEVEL": "3"}


def learner_of(blocks: int, settings: dict, batch: int, who: str):
    """Returns a compiled Learner of so many blocks, that trains with the settings `memory`."""
    import tf_keras as keras

    from modules.large_models.memory import Memory, prepared
    from modules.learner import Learner

    memory = Memory(**settings)
    keras.utils.set_random_seed(1)
    features = hidden = keras.Input([WIDTH], name="features")
    for number in range(1, blocks + 1):
        inner = keras.layers.Dense(4 * WIDTH, activation="tanh")(hidden)
        hidden = keras.layers.Add(name=f"block_{number}")([hidden, keras.layers.Dense(WIDTH)(inner)])
    learner = Learner(
        keras.Model(features, keras.layers.Dense(10)(hidden)),
        micro_batches=memory.micro_batches,
        prepare=lambda model: prepared(model, memory, batch // memory.micro_batches, who),
    )
    learner.compile(optimizer=keras.optimizers.SGD(0.01))
    return learner


def measure(name: str) -> dict[str, float]:
    """Trains in this process; returns seconds of a step and peak memory in MB."""
    import pipelines  # noqa: F401, I001  selects tf_keras before TensorFlow is imported

    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    batch = 1 if name == "plain, one example" else BATCH
    learner = learner_of(BLOCKS, WAYS[name], batch, name)
    random = np.random.RandomState(0)
    x, y = random.normal(size=(batch, WIDTH)).astype(np.float32), random.randint(0, 10, batch)
    data = (({"features": tf.constant(x)}, tf.constant(y), {}), tf.constant(0.0))
    step = tf.function(learner.update)
    step(data)
    took = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step(data)
        took.append(time.perf_counter() - began)
    with open("/proc/self/status") as status:
        (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    return {"seconds": statistics.median(took), "peak_mb": int(peak) / 1024}


def main(rounds: int = 5, way: str = "") -> None:
    """Runs all ways in turns and prints the table."""
    if way:
        print(json.dumps(measure(way)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in WAYS:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory.run", "--way", name]
            done = subprocess.run(command, env=os.environ | ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    base = statistics.median(one["peak_mb"] for one in found["plain, one example"])
    plain_peak = statistics.median(one["peak_mb"] for one in found["plain"]) - base
    print("| training | step, ms | time against plain | peak, MB | activations, MB | against plain |")
    print("|---|---|---|---|---|---|")
    for name, measured in found.items():
        if name == "plain, one example":
            continue
        times = sorted(one["seconds"] / plain["seconds"] for one, plain in zip(measured, found["plain"], strict=True))
        peak = statistics.median(one["peak_mb"] for one in measured)
        milliseconds = statistics.median(one["seconds"] for one in measured) * 1000
        print(
            f"| {name} | {milliseconds:.0f} | {statistics.median(times):.2f} ({times[0]:.2f} to {times[-1]:.2f}) "
            f"| {peak:.0f} | {peak - base:.0f} | {(peak - base) / plain_peak:.2f} |"
        )
    print(f"\nPeak of a batch of one example, plain: {base:.0f} MB; {BLOCKS} blocks of width {WIDTH}, batch {BATCH}.")


if __name__ == "__main__":
    typer.run(main)
