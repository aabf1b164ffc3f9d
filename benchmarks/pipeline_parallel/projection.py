"""What a pipeline of K = 2, 4, 8 stages costs on paper, from what is measured on one and two.

  python -W ignore -m benchmarks.pipeline_parallel.projection

Measured, with the processes of `run`: a step of K = 1 with M micro-batches, and how long a boundary tensor of such a
micro-batch travels from one stage's process to another's (there and back in a chain, a half of it each). From these the
schedule is played through, pass by pass:
  - the K stages are equal, each on a core of its own; a backward pass takes twice as long as a forward pass
  - a pass takes its share of the measured step, so what a micro-batch costs beyond its examples is in it
  - a stage begins when it is free and its tensor is there; a tensor is on its way for as long as measured, either while
    the receiver computes (overlapped) or while it does nothing else (waiting)
  - what is done once a step (starting it on K processes, the optimiser) costs nothing
The measured speed-up of K = 2 stands beside it. Prints Markdown.
"""

import json
import os
import statistics
import time

import typer

from benchmarks.pipeline_parallel.run import BATCH, STEPS, WARM_UP, WIDTH, run_cluster
from benchmarks.stage_processes import run_chief

STAGES, MICRO_BATCHES = (2, 4, 8), (4, 8, 16, 32)
HOPS = 20
BACKWARD_PER_FORWARD = 2.0


def measure_messages() -> dict[str, float]:
    """Returns the seconds that a micro-batch's boundary tensor travels, by M; as the chief of two stages."""
    import tensorflow as tf

    from stillhouse.modules.cluster.spec import cluster_from
    from stillhouse.modules.large_models.parallelism import stage_devices
    from stillhouse.modules.settings import Parallelism

    (devices,) = stage_devices(Parallelism(stages=2, processes=True), cluster_from(os.environ))
    found = {}
    for number in MICRO_BATCHES:

        @tf.function
        def there_and_back(tensor):
            for hop in range(HOPS):
                with tf.device(devices[1 - hop % 2]):
                    tensor = tf.raw_ops.Snapshot(input=tensor)
            return tf.reduce_sum(tensor[0])

        with tf.device(devices[0]):
            tensor = tf.random.normal([BATCH // number, WIDTH])
        took = []
        for _ in range(WARM_UP + STEPS):
            began = time.perf_counter()
            float(there_and_back(tensor))
            took.append(time.perf_counter() - began)
        found[str(number)] = statistics.median(took[WARM_UP:]) / HOPS
    return found


def played_through(
    schedule: str, stages: int, micro_batches: int, of_pass: float, message: float, waiting: bool
) -> float:
    """Returns the seconds of a step.

    Args:
      schedule: gpipe or 1f1b.
      stages: K.
      micro_batches: M.
      of_pass: seconds, forward and backward, of a micro-batch in a stage.
      message: seconds that a tensor travels between stages.
      waiting: whether the receiver does nothing meanwhile.
    """
    from stillhouse.modules.large_models.pipeline import FORWARD, global_order, needs

    free, ends = [0.0] * stages, {}
    forward = of_pass / (1 + BACKWARD_PER_FORWARD)
    for one in global_order(schedule, stages, micro_batches):
        arrived, received = 0.0, False
        for need in needs(one, stages):
            received = need.stage != one.stage
            arrived = max(arrived, ends[need] + (message if received and not waiting else 0.0))
        took = forward if one.kind == FORWARD else of_pass - forward
        begin = max(free[one.stage], arrived)
        ends[one] = free[one.stage] = begin + took + (message if received and waiting else 0.0)
    return max(free)


def main(threads: int = 3, messages: bool = False) -> None:
    """Measures and prints the table; with `messages`, as the chief of two stages."""
    if messages:
        print(json.dumps(measure_messages()))
        return
    numbers = ",".join(map(str, MICRO_BATCHES))
    alone, two = (run_cluster(stages, threads, numbers) for stages in (1, 2))
    environment = {"TF_NUM_INTEROP_THREADS": str(threads)}
    travels, _ = run_chief("benchmarks.pipeline_parallel.projection", 2, ["--messages"], environment)
    heads = ["M", "K = 1, ms", "message, ms", "K", "bound"]
    heads += ["gpipe, overlapped", "gpipe, waiting", "1f1b, waiting", "measured"]
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    for number in MICRO_BATCHES:
        whole, message = alone[f"gpipe {number}"], travels[str(number)]
        for stages in STAGES:
            ways = (("gpipe", False), ("gpipe", True), ("1f1b", True))
            told = [
                whole / played_through(schedule, stages, number, whole / number / stages, message, waiting)
                for schedule, waiting in ways
            ]
            measured = f"{whole / two[f'gpipe {number}']:.2f}" if stages == 2 else ""
            bound = number * stages / (number + stages - 1)
            figures = " | ".join(f"{of:.2f}" for of in (bound, *told))
            print(f"| {number} | {whole * 1000:.0f} | {message * 1000:.2f} | {stages} | {figures} | {measured} |")


if __name__ == "__main__":
    typer.run(main)
