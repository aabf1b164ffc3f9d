"""Measures the time that training waits for input.

A clock is read when a batch is requested, and again when it is received. The difference accompanies the batch, and the
learner sums it, so it is the same for both loops and all strategies.
"""

import statistics
from collections.abc import Sequence

import tensorflow as tf

from stillhouse.modules.ingestion.files import as_written
from stillhouse.modules.settings import Ingestion

# Names in the training history: mean seconds per batch, and fraction of an epoch's time.
INPUT_WAIT = "input_wait"
INPUT_SHARE = "input_share"
INPUT_BOUND_FROM = 0.20  # fraction of step time from which training is called input-bound


def clocked(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the infinite dataset (batch, waited): the seconds, float32, between request and receipt of a batch.

    The requesting thread evaluates the parts of a zip one after the other; reading a clock has a side effect,
    so tf.data neither moves nor repeats it.
    """
    clock = tf.data.Dataset.range(tf.int64.max).map(as_written(lambda _: tf.timestamp()))
    timed = tf.data.Dataset.zip((clock, batches)).map(
        as_written(lambda requested, batch: (batch, tf.cast(tf.timestamp() - requested, tf.float32)))
    )
    # Otherwise strategies check before every step whether another one exists.
    return timed.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def median_after_first(of_epochs: Sequence[float]) -> float:
    """Returns the median over the epochs after the first, which traces, compiles and fills caches."""
    return statistics.median(of_epochs[1:] or of_epochs)


def verdict(name: str, shares: Sequence[float], options: Ingestion, augments: bool) -> str:
    """Returns one line: the fraction of step time spent waiting for input, and what to change if it is large.

    Args:
      name: the model's name.
      shares: fraction of each epoch's time spent waiting.
      options: the settings of reading.
      augments: whether inputs are augmented.
    """
    share = median_after_first(shares)
    line = f"{name}: {share:.0%} of the step time is waiting for input"
    if share < INPUT_BOUND_FROM:
        return line
    if augments and not options.service_workers:
        return f"{line}: input-bound by augment; make it cheaper, or set ingestion.service_workers"
    if options.cache == "none":
        return f"{line}: input-bound; set ingestion.cache: memory, or disk"
    if options.cache == "disk":
        return f"{line}: input-bound; set ingestion.cache: memory if the data fits (ingestion.memory_share)"
    return f"{line}: input-bound; a larger batch_size reads more examples at once"
