"""Input workers: real processes of tf.data service."""

import os
import signal
import time

import psutil
import pytest
from records import SPEC, write

from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.service import input_service
from stillhouse.modules.ingestion.stream import Source, parsed_batches, record_batches
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Ingestion

PARSER = ExampleParser(SPEC, "label", HEADS["classification"])
OPTIONS = Ingestion(deterministic=False)


@pytest.fixture
def batches(tmp_path):
    """Epochs of 5 batches, 30 examples."""
    files = [write(tmp_path / f"{shard}.gz", range(10 * shard, 10 * shard + 10)) for shard in range(3)]
    source = Source(ExampleFiles(files, count=30))
    return parsed_batches(record_batches(source, PARSER, 7, 1, OPTIONS), PARSER, 1, OPTIONS)


def workers():
    """Returns the process ids of this process's input workers that are alive."""
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return {child.pid for child in alive if "stillhouse.modules.ingestion.service" in child.cmdline()}


def test_workers_read_every_example_and_one_that_is_killed_is_replaced(batches):
    with input_service(2) as service:
        first = workers()
        assert len(first) == 2
        iterator = iter(service.distributed(batches))
        seen = [int(label) for _ in range(40) for label in next(iterator)[1]]
        assert set(seen) == set(range(30))
        killed, other = first
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not (replaced := workers() - first) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(replaced) == 1
        assert workers() == {other, *replaced}
        more = [int(label) for _ in range(40) for label in next(iterator)[1]]
        assert set(more) == set(range(30))
    assert not workers()


def test_no_workers_no_service():
    with input_service(0) as service:
        assert service is None
