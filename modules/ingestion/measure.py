"""Examples per second of each way to read the same examples, beside what reading them costs at the least."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import tensorflow as tf

from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import named_files, read, records_of_file
from stillhouse.modules.ingestion.in_memory import Columns
from stillhouse.modules.ingestion.labels import scan_labels
from stillhouse.modules.ingestion.on_disk import on_disk
from stillhouse.modules.ingestion.options import Options
from stillhouse.modules.ingestion.stream import Source, parsed_batches, record_batches

NAIVE = "naive: record by record, nothing in parallel"
LIMIT = "limit: read and parse, no order, no shuffling"
CACHES = ("none", "disk", "memory")
# Batches that are left out: the first ones fill buffers.
WARM_UP = 4


@dataclass(frozen=True)
class Rate:
    """What was measured of one way."""

    way: str
    examples_per_second: list[float]  # of each round
    prepared_seconds: float  # before the first batch, once

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.examples_per_second)


def naive(source: Source, parser: ExampleParser, batch_size: int, options: Options) -> tf.data.Dataset:
    """Returns batches as a first attempt makes them."""
    records = read(source.files.examples)
    examples = records.map(lambda record: tf.io.parse_single_example(record, parser.spec))
    return examples.shuffle(options.shuffle_buffer).batch(batch_size).repeat()


def limit(source: Source, parser: ExampleParser, batch_size: int, options: Options) -> tf.data.Dataset:
    """Returns what TensorFlow's readers and parser give in whatever order, on all cores."""
    paired = source.files.soft_targets is not None
    batches = named_files(source.files).interleave(
        lambda *named: records_of_file(*named, paired=paired).batch(batch_size),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    return batches.map(parser.columns, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).repeat().prefetch(1)


@contextmanager
def ours(
    cache: str, source: Source, parser: ExampleParser, batch_size: int, options: Options
) -> Iterator[tf.data.Dataset]:
    """Gives the batches of one of CACHES."""
    options = replace(options, cache=cache)
    with tempfile.TemporaryDirectory() as folder:
        if cache == "memory":
            batches = Columns.load(source.files, parser).batches(batch_size, 1, options)
        else:
            files = on_disk(source.files, folder) if cache == "disk" else source.files
            records = record_batches(replace(source, files=files), parser, batch_size, 1, options)
            batches = parsed_batches(records, parser, 1, options)
        yield options.applied(batches.prefetch(options.or_autotune("prefetch")))


def rate_of(batches: tf.data.Dataset, label: str, seconds: float) -> float:
    """Returns examples per second of a dataset without end: (features, labels, targets), or columns by their names."""
    iterator = iter(batches)
    for _ in range(WARM_UP):
        next(iterator)
    examples, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        batch = next(iterator)
        examples += len(batch[label] if isinstance(batch, dict) else batch[1])
    return examples / took


def measure(
    source: Source,
    parser: ExampleParser,
    batch_size: int,
    options: Options,
    rounds: int,
    seconds: float,
    on_progress: Callable[[str], None] = lambda way: None,
) -> list[Rate]:
    """Returns the rates of NAIVE, LIMIT and the caches; they take turns.

    Args:
      source: the examples.
      parser: of the examples.
      batch_size: examples in a batch.
      options: how they are read otherwise.
      rounds: measurements of each.
      seconds: of a measurement.
      on_progress: called with each way before it is measured.
    """
    counted = replace(source, files=replace(source.files, count=scan_labels(source, parser).examples))
    rates: dict[str, list[float]] = {}
    prepared: dict[str, float] = {}
    for _ in range(rounds):
        for way, make in ((NAIVE, naive), (LIMIT, limit)):
            on_progress(way)
            rates.setdefault(way, []).append(rate_of(make(counted, parser, batch_size, options), parser.label, seconds))
        for cache in CACHES:
            on_progress(cache)
            began = time.perf_counter()
            with ours(cache, counted, parser, batch_size, options) as batches:
                prepared.setdefault(cache, time.perf_counter() - began)
                rates.setdefault(cache, []).append(rate_of(batches, parser.label, seconds))
    return [Rate(way, per_round, prepared.get(way, 0.0)) for way, per_round in rates.items()]
