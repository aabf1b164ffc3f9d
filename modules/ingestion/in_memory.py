"""Batches from parsed examples in memory, one tensor per feature.

An epoch is a permutation of all rows, a function of the seed and the epoch number
(tf.random.experimental.index_shuffle), so a batch is looked up by its step number: a resumed training job skips
nothing, and any example can follow any other.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE, ExampleFiles, as_written, named_files, records_of_file
from stillhouse.modules.ingestion.folds import without
from stillhouse.modules.ingestion.options import or_autotune
from stillhouse.modules.ingestion.stream import Change, Portion, changed, slice_size, steps_in
from stillhouse.modules.settings import Fold, Ingestion, Shard

# Column of serialized examples, for features of varying shapes, which cannot be kept parsed.
RECORDS = "serialized example"
SMALL_INTEGERS = (np.uint8, np.int16, np.int32)


def narrowed(values: np.ndarray) -> np.ndarray:
    """Returns the values in the smallest type that holds them without loss: class ids and pixels are often bytes."""
    if values.dtype == np.int64 and values.size:
        for dtype in SMALL_INTEGERS:
            limits = np.iinfo(dtype)
            if limits.min <= values.min() and values.max() <= limits.max:
                return values.astype(dtype)
    if values.dtype == np.float32 and values.size and values.min() >= 0 and values.max() <= np.iinfo(np.uint8).max:
        whole = values.astype(np.uint8)
        # Negative zero is a different number.
        if np.array_equal(whole, values) and not np.signbit(values).any():
            return whole
    return values


class Columns:
    """Examples in memory."""

    def __init__(self, parser: ExampleParser, values: dict[str, np.ndarray]):
        """Stores {feature: [examples, ...]}, or {RECORDS: [examples], label: [examples]}; empties `values`."""
        self._parser = parser
        self._kinds = {name: tf.as_dtype(column.dtype) for name, column in values.items()}
        with tf.device("/CPU:0"):
            # Removed one by one, so that at most one column is in memory twice.
            self._columns = {name: tf.constant(narrowed(values.pop(name))) for name in list(values)}

    @classmethod
    def load(
        cls,
        files: ExampleFiles,
        parser: ExampleParser,
        shard: Shard | None = None,
        omit_classes: Sequence[int] = (),
        held_out: Fold | None = None,
    ) -> "Columns":
        """Reads the examples of the files, as `Source` describes them; their order is always the same."""
        paired = files.soft_targets is not None
        batches = named_files(files).interleave(
            as_written(lambda file, kind, targets: records_of_file(file, kind, targets, paired).batch(RECORDS_AT_ONCE)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        batches = batches.map(
            as_written(lambda records: _kept(parser, without(records, held_out))),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        spec = batches.element_spec
        parts = {name: [np.zeros([0, *part.shape[1:]], part.dtype.as_numpy_dtype)] for name, part in spec.items()}
        for batch in batches.prefetch(1).as_numpy_iterator():
            for name, column in batch.items():
                parts[name].append(column)
        labels = np.concatenate(parts[parser.label])
        rows = np.arange(len(labels))[shard.index :: shard.of] if shard else np.arange(len(labels))
        if len(omit_classes):
            rows = rows[~np.isin(labels[rows].reshape(-1), omit_classes)]
        every = len(rows) == len(labels)
        values = {}
        for name in list(parts):
            column = np.concatenate(parts.pop(name))
            values[name] = column if every else column[rows]
        return cls(parser, values)

    def joined(self, other: "Columns") -> "Columns":
        """Returns these examples followed by `other`."""

        def values(columns, name):
            return columns._columns[name].numpy().astype(columns._kinds[name].as_numpy_dtype)

        names = self._columns
        return Columns(
            self._parser, {name: np.concatenate([values(self, name), values(other, name)]) for name in names}
        )

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def labels(self) -> np.ndarray:
        """Labels in the examples' order."""
        return self._columns[self._parser.label].numpy()

    @property
    def bytes(self) -> int:
        """Size in bytes, without strings."""
        return sum(column.dtype.size * column.shape.num_elements() for column in self._columns.values())

    def batches(
        self,
        batch_size: int,
        seed: int,
        options: Ingestion,
        *,
        first_step: int = 0,
        drop_remainder: bool = False,
        change: Change | None = None,
        portion: Portion | None = None,
    ) -> tf.data.Dataset:
        """Returns shuffled batches, epoch after epoch without end; the arguments are those of the stream's functions.

        The tensors are held by the returned dataset.
        """
        parser, count = self._parser, self.count
        portion = portion or Portion(0, 1, 1)
        steps = steps_in(count, batch_size, drop_remainder)
        columns, kinds = self._columns, self._kinds
        static_size = slice_size(batch_size, portion.total) if drop_remainder else None

        def rows_of(step, replica):
            begin = step % steps * batch_size
            end = tf.minimum(begin + batch_size, count)
            size = slice_size(end - begin, portion.total)
            own = tf.range(tf.minimum(begin + replica * size, end), tf.minimum(begin + (replica + 1) * size, end))
            order = tf.stack([tf.constant(seed, tf.int64), step // steps])
            # The operation rejects an empty vector, which the last replica may have.
            shuffled = tf.random.experimental.index_shuffle(
                tf.concat([own, [0]], axis=0), seed=order, max_index=tf.constant(count - 1, tf.int64)
            )
            return tf.ensure_shape(shuffled[:-1], [static_size])

        def batch_of(number):
            step, replica = number // portion.count, portion.first + number % portion.count
            rows = rows_of(step, replica)
            batch = {name: tf.cast(tf.gather(column, rows), kinds[name]) for name, column in columns.items()}
            example = parser(batch[RECORDS]) if RECORDS in batch else parser.example(batch)
            return changed(example, change, seed, step * portion.total + replica)

        return tf.data.Dataset.range(first_step * portion.count, tf.int64.max).map(
            batch_of if change else as_written(batch_of),
            num_parallel_calls=or_autotune(options.parallel_calls),
            deterministic=options.deterministic,
        )


def _kept(parser: ExampleParser, records: tf.Tensor) -> dict[str, tf.Tensor]:
    if parser.is_dense:
        return parser.columns(records)
    only_label = {parser.label: parser.spec[parser.label]}
    return {RECORDS: records} | tf.io.parse_example(records, only_label)
