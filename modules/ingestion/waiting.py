"""How long a training waits for its input.

A clock is read when a batch is asked for, and again when it is there. The difference travels with the batch, and the
learner adds it up, so it is the same for both loops and all strategies.
"""

import statistics
from collections.abc import Sequence

import tensorflow as tf

from stillhouse.modules.settings import Ingestion

# Names in a training's history: seconds of a batch, mean, and share of the time of an epoch.
INPUT_WAIT = "input_wait"
INPUT_SHARE = "input_share"
WORTH_A_WORD = 0.20  # share of the step time from which a training is said to be input-bound


def clocked(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns (batch, waited), without end as `batches` are: with the seconds,
    float32, between asking for a batch and having it.

    The parts of a zip are asked one after the other by the thread that wants the batch; reading a clock has a side
    effect, for which reason tf.data neither moves nor repeats it.
    """
    clock = tf.data.Dataset.range(tf.int64.max).map(lambda _: tf.timestamp())
    timed = tf.data.Dataset.zip((clock, batches)).map(
        lambda asked, batch: (batch, tf.cast(tf.timestamp() - asked, tf.float32))
    )
    # Else strategies ask before every step whether there is one more.
    return timed.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def typical(of_epochs: Sequence[float]) -> float:
    """Returns the median over the epochs but the first, which traces, compiles and fills caches."""
    return statistics.median(of_epochs[1:] or of_epochs)


def verdict(name: str, shares: Sequence[float], options: Ingestion, augments: bool) -> str:
    """Returns one line: how much of the step time a training waited for input, and what to change if that is much.

    Args:
      name: of the model.
      shares: of each epoch's time.
      options: how the examples were read.
      augments: whether inputs are changed as they are read.
    """
    share = typical(shares)
    line = f"{name}: {share:.0%} of the step time is waiting for input"
    if share < WORTH_A_WORD:
        return line
    if augments and not options.service_workers:
        return f"{line}: input-bound by augment; make it cheaper, or set ingestion.service_workers"
    if options.cache == "none":
        return f"{line}: input-bound; set ingestion.cache: memory, or disk"
    if options.cache == "disk":
        return f"{line}: input-bound; set ingestion.cache: memory if the data fits (ingestion.memory_share)"
    return f"{line}: input-bound; a larger batch_size reads more examples at once"
