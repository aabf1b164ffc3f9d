"""Measures examples per second of each method of reading the same examples, beside a lower and an upper bound."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import tensorflow as tf

from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import as_written, named_files, read, records_of_file
from stillhouse.modules.ingestion.in_memory import Columns
from stillhouse.modules.ingestion.labels import scan_labels
from stillhouse.modules.ingestion.on_disk import on_disk
from stillhouse.modules.ingestion.options import or_autotune, with_options
from stillhouse.modules.ingestion.stream import Source, parsed_batches, record_batches
from stillhouse.modules.settings import Ingestion

NAIVE = "naive: record by record, nothing in parallel"
LIMIT = "limit: read and parse, no order, no shuffling"
CACHES = ("none", "disk", "memory")
# Batches before the measurement: they fill buffers.
WARM_UP = 4


@dataclass(frozen=True)
class Rate:
    """Measurements of one method."""

    way: str
    examples_per_second: list[float]  # of each round
    prepared_seconds: float  # before the first batch of the first round

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.examples_per_second)


def naive(source: Source, parser: ExampleParser, batch_size: int, options: Ingestion) -> tf.data.Dataset:
    """Returns the batches of a naive pipeline."""
    records = read(source.files.examples)
    examples = records.map(lambda record: tf.io.parse_single_example(record, parser.spec))
    return examples.shuffle(options.shuffle_buffer).batch(batch_size).repeat()


def limit(source: Source, parser: ExampleParser, batch_size: int, options: Ingestion) -> tf.data.Dataset:
    """Returns the batches of TensorFlow's readers and parser on all cores, in any order."""
    paired = source.files.soft_targets is not None
    batches = named_files(source.files).interleave(
        as_written(lambda file, kind, targets: records_of_file(file, kind, targets, paired).batch(batch_size)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    columns = as_written(parser.columns)
    return batches.map(columns, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).repeat().prefetch(1)


@contextmanager
def ours(
    cache: str, source: Source, parser: ExampleParser, batch_size: int, options: Ingestion
) -> Iterator[tf.data.Dataset]:
    """Yields the batches of one of CACHES."""
    options = options.model_copy(update={"cache": cache})
    with tempfile.TemporaryDirectory() as folder:
        if cache == "memory":
            batches = Columns.load(source.files, parser).batches(batch_size, 1, options)
        else:
            files = on_disk(source.files, folder) if cache == "disk" else source.files
            records = record_batches(replace(source, files=files), parser, batch_size, 1, options)
            batches = parsed_batches(records, parser, 1, options)
        yield with_options(batches.prefetch(or_autotune(options.prefetch)), options)


def rate_of(batches: tf.data.Dataset, label: str, seconds: float) -> float:
    """Returns examples per second of an infinite dataset of (features, labels, targets), or of columns by name."""
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
    options: Ingestion,
    rounds: int,
    seconds: float,
    on_progress: Callable[[str], None] = lambda way: None,
) -> list[Rate]:
    """Returns the rates of NAIVE, LIMIT and the caches, measured in turn.

    Args:
      source: the examples.
      parser: the parser of the examples.
      batch_size: examples per batch.
      options: the other settings of reading.
      rounds: number of measurements of each method.
      seconds: duration of a measurement.
      on_progress: called with each method's name before its measurement.
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
    return [Rate(way, way_rates, prepared.get(way, 0.0)) for way, way_rates in rates.items()]
