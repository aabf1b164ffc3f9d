"""The largest network that trains under a limit of memory, and what dies there.

  python -W ignore -m benchmarks.memory.limit [--megabytes 800] [--largest-tried 256]

As GPipe's table 1 (Huang et al. 2019). The chain of blocks of `run`, trained by Learner with Adam. Each device is a
process of its own, whose data segment the kernel limits (RLIMIT_DATA) to what it has once TensorFlow has trained a tiny
network there, and so many megabytes more: parameters, gradients, Adam's state, activations and all else have to fit. A
number of blocks is tried by two updates in fresh processes; the largest is found by halving. Prints Markdown.
"""

import json
import os
import resource
import subprocess

import typer

from benchmarks.memory.network import ENVIRONMENT, Way, batch_of, chain, stepper
from benchmarks.stage_processes import run_chief, stage_pids

BATCH, MICRO_BATCHES, WARM_UP_BLOCKS = 32768, 4, 4
SECONDS = 600.0  # for a trial
LIVES = "lives"
WAYS = {
    "plain": Way(),
    "accumulated": Way(micro_batches=MICRO_BATCHES),
    "rematerialised": Way(cuts="auto"),
    "accumulated and rematerialised": Way(micro_batches=MICRO_BATCHES, cuts="auto"),
    "swapped": Way(cuts="auto", swap=True),
    "pipeline, K = 1": Way(micro_batches=MICRO_BATCHES, stages=1),
    "pipeline, K = 2": Way(micro_batches=MICRO_BATCHES, stages=2),
    "pipeline, K = 4": Way(micro_batches=MICRO_BATCHES, stages=4),
}


def limit(pid: int, megabytes: int) -> None:
    """Lets a process have so much more than it has."""
    with open(f"/proc/{pid}/status") as status:
        (now,) = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    most = now + megabytes * 1_000_000
    resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))


def attempt(name: str, blocks: int, megabytes: int) -> str:
    """Trains under the limit; returns LIVES, or what the matter was."""
    import tensorflow as tf

    from stillhouse.modules.cluster.spec import cluster_from
    from stillhouse.modules.large_models.parallelism import stage_devices
    from stillhouse.modules.settings import Parallelism

    way = WAYS[name]
    (devices,) = stage_devices(Parallelism(stages=max(1, way.stages), processes=True), cluster_from(os.environ))
    stepper(WARM_UP_BLOCKS, way, devices)(*batch_of(MICRO_BATCHES * 4))
    for pid in stage_pids():
        limit(pid, megabytes)
    try:
        update = stepper(blocks, way, devices)
        for _ in range(2):
            update(*batch_of(BATCH))
    except tf.errors.OpError as error:  # out of memory, or its process is gone
        return f"{type(error).__name__}: {next(iter(error.message.splitlines()), '')}"
    return LIVES


def fate(name: str, blocks: int, megabytes: int) -> str:
    """Returns what `attempt` does in fresh processes."""
    arguments = ["--way", name, "--blocks", str(blocks), "--megabytes", str(megabytes)]
    try:
        told, _ = run_chief("benchmarks.memory.limit", max(1, WAYS[name].stages), arguments, ENVIRONMENT, SECONDS)
    except subprocess.CalledProcessError as error:  # TensorFlow may end the chief along with a device
        told = f"exit code {error.returncode}"
    except subprocess.TimeoutExpired:
        told = f"nothing after {SECONDS:.0f} s"
    typer.echo(f"{name}, {blocks} blocks: {told}", err=True)
    return told


def largest(name: str, megabytes: int, most: int) -> int:
    """Returns the most blocks that train, up to `most`; a twentieth more or less."""
    good, bad = max(1, WAYS[name].stages), most + 1
    while bad - good > max(1, good // 20):
        middle = (good + bad) // 2 if bad <= most else min(most, good * 2)
        if fate(name, middle, megabytes) == LIVES:
            good = middle
        else:
            bad = middle
        if good == most:
            break
    return good


def main(megabytes: int = 800, largest_tried: int = 256, way: str = "", blocks: int = 0) -> None:
    """Looks for the largest of each way, then tries the plain one's successor by all; with `way`, as one process."""
    if way:
        print(json.dumps(attempt(way, blocks, megabytes)))
        return
    found = {name: largest(name, megabytes, largest_tried) for name in WAYS}
    beyond = found["plain"] * 3 // 2
    fates = {name: fate(name, beyond, megabytes) for name in WAYS}
    print(f"| training | blocks | parameters, millions | against plain | {beyond} blocks |\n|---|---|---|---|---|")
    for name, most in found.items():
        parameters = chain(most).count_params() / 1e6
        print(f"| {name} | {most} | {parameters:.1f} | {most / found['plain']:.1f} | {fates[name]} |")
    print(f"\n{megabytes} MB, batch {BATCH}, {MICRO_BATCHES} micro-batches.")


if __name__ == "__main__":
    typer.run(main)
