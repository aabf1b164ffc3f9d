"""The same network by PyTorch's torch.distributed.pipelining over gloo, in an environment of its own.

  python benchmarks/pipeline_parallel/peer.py --stages 2 --micro-batches 8 --schedule gpipe

Started by `benchmarks.pipeline_parallel.run --peer PYTHON`; prints the median seconds of a step as JSON.
"""

import argparse
import json
import os
import socket
import statistics
import time

import torch
from torch import distributed, multiprocessing
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

# As in run.py, which cannot be imported here.
LAYERS, WIDTH, BATCH = 8, 1024, 1024
WARM_UP, STEPS = 2, 5


def layers(count: int) -> torch.nn.Module:
    """Returns so many dense layers."""
    return torch.nn.Sequential(
        *(part for _ in range(count) for part in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()))
    )


def loss_of(output, wanted):
    """The loss of run.py."""
    return torch.square(output - wanted).sum() / BATCH


def alone(micro_batches: int) -> list[float]:
    """Returns the seconds of the steps on one core."""
    network, took = layers(LAYERS), []
    x = torch.randn(BATCH, WIDTH)
    y = x.flip(1)
    for _ in range(WARM_UP + STEPS):
        network.zero_grad()
        began = time.perf_counter()
        for own, wanted in zip(x.chunk(micro_batches), y.chunk(micro_batches), strict=True):
            loss_of(network(own), wanted).backward()
        took.append(time.perf_counter() - began)
    return took


def staged(rank: int, stages: int, micro_batches: int, schedule: str) -> list[float]:
    """Returns the seconds of the steps of a stage, from when all begin until all have ended."""
    network, took = layers(LAYERS // stages), []
    stage = PipelineStage(network, rank, stages, torch.device("cpu"))
    kind = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[schedule]
    pipeline = kind(stage, n_microbatches=micro_batches, loss_fn=loss_of)
    # Gradients are summed over micro-batches, as ours are.
    x = torch.randn(BATCH, WIDTH)
    y = x.flip(1)
    for _ in range(WARM_UP + STEPS):
        network.zero_grad()
        distributed.barrier()
        began = time.perf_counter()
        if rank == 0:
            pipeline.step(x)
        elif rank == stages - 1:
            pipeline.step(target=y, losses=[])
        else:
            pipeline.step()
        distributed.barrier()
        took.append(time.perf_counter() - began)
    return took


def work(rank: int, given: argparse.Namespace, port: int, told) -> None:
    """Is one process."""
    os.sched_setaffinity(0, {rank % os.cpu_count()})
    torch.set_num_threads(1)
    torch.manual_seed(1)
    if given.stages == 1:
        took = alone(given.micro_batches)
    else:
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=given.stages
        )
        took = staged(rank, given.stages, given.micro_batches, given.schedule)
        distributed.destroy_process_group()
    if rank == 0:
        told.put(took[WARM_UP:])


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int)
    parser.add_argument("--micro-batches", type=int)
    parser.add_argument("--schedule", default="gpipe")
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    processes = [context.Process(target=work, args=(rank, given, port, told)) for rank in range(given.stages)]
    for process in processes:
        process.start()
    took = told.get(timeout=300)
    for process in processes:
        process.join()
    print(json.dumps({"seconds": statistics.median(took)}))


if __name__ == "__main__":
    main()
