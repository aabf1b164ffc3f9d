"""Reads and parses batches in worker processes, with tf.data service.

For input that is too expensive for the training process, such as a task's own augment. Each worker reads whole epochs;
batches arrive in the order in which they are ready, so neither their order nor a resumed training job is exact.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from stillhouse.modules import progress
from stillhouse.modules.parent_process import end_with_parent

HOST = "127.0.0.1"
SECONDS_BETWEEN_LOOKS = 0.5
MAX_RESTARTS = 10  # over all workers


class InputService:
    """A dispatcher in this process with worker processes, until it is closed; a worker that dies is replaced."""

    def __init__(self, workers: int):
        """Starts the dispatcher and `workers` worker processes."""
        service = tf.data.experimental.service
        self._dispatcher = service.DispatchServer()
        self._address = f"{HOST}:{self._dispatcher.target.rpartition(':')[2]}"
        self._closed = threading.Event()
        self._processes = [self._started() for _ in range(workers)]
        self._watch = threading.Thread(target=self._replace, daemon=True)
        self._watch.start()

    def distributed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches as the workers produce them; `batches` begins with the epoch numbers."""
        service = tf.data.experimental.service
        return batches.apply(
            service.distribute(service.ShardingPolicy.DYNAMIC, service=f"grpc://{self._address}", job_name="training")
        )

    def close(self) -> None:
        """Ends the workers."""
        self._closed.set()
        self._watch.join()
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()

    def _started(self) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return subprocess.Popen(
            [sys.executable, "-m", "stillhouse.modules.ingestion.service", self._address],
            env=environment,
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only the training process
        )

    def _replace(self) -> None:
        starts = 0
        while not self._closed.wait(SECONDS_BETWEEN_LOOKS):
            for number, process in enumerate(self._processes):
                if process.poll() is not None and starts < MAX_RESTARTS:
                    starts += 1
                    progress.note(f"input worker {number} ended with exit code {process.returncode}; replacing it")
                    self._processes[number] = self._started()


@contextmanager
def input_service(workers: int) -> Iterator[InputService | None]:
    """Yields a service with `workers` workers; None for 0."""
    if not workers:
        yield None
        return
    service = InputService(workers)
    try:
        yield service
    finally:
        service.close()


def work(dispatcher: str) -> None:
    """Runs a worker of the dispatcher until its parent ends it."""
    end_with_parent()
    service = tf.data.experimental.service
    config = service.WorkerConfig(dispatcher_address=dispatcher, worker_address=f"{HOST}:%port%")
    service.WorkerServer(config).join()


if __name__ == "__main__":
    work(sys.argv[1])
