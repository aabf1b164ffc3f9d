"""Step time and peak memory of a plain training, and of one with accumulation, rematerialisation, and swap.

  python -W ignore -m benchmarks.memory.run [--rounds 5]

A chain of equal blocks, trained by Learner on one batch. The device is a process of its own, which the training's
process drives as it would a GPU: a fresh one for each measurement, of which VmHWM is the peak, pinned to a core. The
host, whereto activations are swapped, is the training's process; they travel by gRPC. The ways take turns within a
round. Activations are what grows with the batch: twice the difference of the peaks of a batch and of half a batch.
Prints Markdown.
"""

import json
import os
import statistics
import time

import typer

from benchmarks.memory.network import ENVIRONMENT, Way, batch_of, stepper
from benchmarks.stage_processes import run_chief, stage_pids
from stillhouse.modules.peak_memory import forget_peak

BLOCKS, BATCH, STEPS = 36, 4096, 4
EACH_BLOCK = [f"block_{number}" for number in range(1, BLOCKS)]
PLAIN = "plain"
WAYS = {
    PLAIN: Way(),
    "accumulated, 4 micro-batches": Way(micro_batches=4),
    "rematerialised, each block": Way(cuts=EACH_BLOCK),
    "rematerialised, auto": Way(cuts="auto"),
    "accumulated and rematerialised": Way(micro_batches=4, cuts="auto"),
    "swapped, each block": Way(cuts=EACH_BLOCK, swap=True),
    "swapped, auto": Way(cuts="auto", swap=True),
}


def measure(name: str, batch: int) -> float:
    """Trains; returns the seconds of a step."""
    from stillhouse.modules.cluster.spec import cluster_from
    from stillhouse.modules.large_models.parallelism import stage_devices
    from stillhouse.modules.settings import Parallelism

    (devices,) = stage_devices(Parallelism(stages=1, processes=True), cluster_from(os.environ))
    update = stepper(BLOCKS, WAYS[name], devices)
    x, y = batch_of(batch)
    update(x, y)
    for pid in stage_pids():
        forget_peak(pid)  # of making the graph
    took = []
    for _ in range(STEPS):
        began = time.perf_counter()
        update(x, y)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main(rounds: int = 5, way: str = "", batch: int = BATCH) -> None:
    """Measures all ways in turns and prints the table; with `way`, as the process that trains."""
    if way:
        print(json.dumps(measure(way, batch)))
        return
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    peaks: dict[str, list[float]] = {name: [] for name in WAYS}
    grown: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in WAYS:
            measured = {}
            for of in (BATCH // 2, BATCH):
                arguments = ["--way", name, "--batch", str(of)]
                measured[of] = run_chief("benchmarks.memory.run", 1, arguments, ENVIRONMENT)
            (_, (of_half,)), (took, (peak,)) = measured.values()
            seconds[name].append(took)
            peaks[name].append(peak)
            grown[name].append(2 * (peak - of_half))
    print("| training | step, ms | time against plain | peak, MB | activations, MB | against plain |")
    print("|---|---|---|---|---|---|")
    for name in WAYS:
        milliseconds, peak, activations = (statistics.median(of[name]) for of in (seconds, peaks, grown))
        print(
            f"| {name} | {milliseconds * 1000:.0f} | {against_plain(seconds, name)} | {peak:.0f} | {activations:.0f} "
            f"| {against_plain(grown, name)} |"
        )
    print(f"\n{BLOCKS} blocks, batch {BATCH}.")


def against_plain(measured: dict[str, list[float]], name: str) -> str:
    """Returns the ratio to the plain training, the median and the spread over the rounds."""
    ratios = sorted(ours / plain for ours, plain in zip(measured[name], measured[PLAIN], strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    typer.run(main)
