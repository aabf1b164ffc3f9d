"""Batches from files that are read again in every epoch: interleaved, and shuffled through a buffer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles, Shard, named_files, records_of_file
from stillhouse.modules.ingestion.options import Options

# From a parsed batch (features, labels, targets) and a seed int32 [2] that differs from batch to batch to such a batch:
# what augments or masks it.
Change = Callable[[tuple, tf.Tensor], tuple]


@dataclass(frozen=True)
class Portion:
    """What replicas `first` to `first + count - 1` of `total` take: their equal slices of every global batch."""

    first: int
    count: int
    total: int


def portion_of(context: tf.distribute.InputContext) -> Portion:
    """Returns the portion of one input pipeline of a synchronous strategy."""
    count = context.num_replicas_in_sync // context.num_input_pipelines
    return Portion(context.input_pipeline_id * count, count, context.num_replicas_in_sync)


@dataclass(frozen=True)
class Source:
    """The examples of a training; transfer examples, which have no label, are mixed evenly among the others."""

    files: ExampleFiles
    transfer: ExampleFiles | None = None
    shard: Shard | None = None  # of the labelled examples; None: all
    omit_classes: Sequence[int] = ()  # labelled examples of these classes are left out

    @property
    def count(self) -> int:
        """Examples of an epoch; the files are counted."""
        return self.files.count + (self.transfer.count if self.transfer else 0)

    def of_worker(self, index: int, workers: int) -> "Source":
        """Returns the source with every `workers`-th file from `index` on.

        Raises:
          UserError: there are fewer files than workers.
        """

        def own(files):
            if len(files.examples) < workers:
                raise UserError(
                    f"ingestion.sharding: file: {workers} workers want a file each, there are {len(files.examples)} "
                    f"({files.examples[0]}, ...); set sharding: batch"
                )
            return replace(files, examples=files.examples[index::workers])

        return replace(self, files=own(self.files), transfer=self.transfer and own(self.transfer))

    def labelled(self, parser: ExampleParser, seed: tf.Tensor | int | None, options: Options) -> tf.data.Dataset:
        """Returns the serialized examples without the transfer examples; seed None: files in their order."""
        # Shards are disjoint only if all of them see the files in one order.
        records = _interleaved(self.files, None if self.shard else seed, options)
        if self.shard:
            records = records.shard(self.shard.of, self.shard.index)
        if self.omit_classes:
            only_label = {parser.label: parser.spec[parser.label]}
            omitted = tf.constant(list(self.omit_classes), tf.int64)

            def is_kept(record):
                label = tf.reshape(tf.io.parse_single_example(record, only_label)[parser.label], [])
                return tf.reduce_all(label != omitted)

            records = records.filter(is_kept)
        return records

    def records(self, parser: ExampleParser, seed: tf.Tensor | int, options: Options) -> tf.data.Dataset:
        """Returns the serialized examples of an epoch, files in the order of the seed."""
        labelled = self.labelled(parser, seed, options)
        if not self.transfer:
            return labelled
        return tf.data.Dataset.sample_from_datasets(
            [labelled, _interleaved(self.transfer, seed, options)],
            weights=[float(self.files.count), float(self.transfer.count)],
            seed=seed,
        )


def _interleaved(files: ExampleFiles, seed: tf.Tensor | int | None, options: Options) -> tf.data.Dataset:
    """Returns the serialized examples of several files at a time, each with its soft targets behind it."""
    named = named_files(files)
    if seed is not None:
        named = named.shuffle(len(files.examples), seed=seed, reshuffle_each_iteration=False)
    paired = files.soft_targets is not None
    return named.interleave(
        lambda *names: records_of_file(*names, paired=paired),
        cycle_length=options.or_autotune("interleave_files"),
        block_length=options.interleave_block,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=options.deterministic,
    )


def steps_in(count: int, batch_size: int, drop_remainder: bool) -> int:
    """Returns the number of batches of `count` examples."""
    return count // batch_size if drop_remainder else -(-count // batch_size)


def record_batches(
    source: Source,
    parser: ExampleParser,
    batch_size: int,
    seed: int,
    options: Options,
    *,
    first_step: int = 0,
    drop_remainder: bool = False,
    cached: bool = False,
) -> tf.data.Dataset:
    """Returns shuffled batches of serialized examples, epoch after epoch without end: (step, string [batch]).

    The order is a function of the seed and the number of the epoch; it is the same with soft targets and without. A
    training that is resumed at a step gets exactly the batches that it would have got: those of its epoch before the
    step are shuffled and passed over, not parsed; epochs before are not looked at.

    Args:
      source: the examples.
      parser: knows where the label stands, for classes that are omitted.
      batch_size: examples in a (global) batch; the last batch of an epoch may be smaller.
      seed: seed of the shuffling.
      options: how to read.
      first_step: the steps before it are left out.
      drop_remainder: leave out the last batch of an epoch if it is smaller.
      cached: keep the records in this process's memory after the first epoch.
    """

    steps = steps_in(source.count, batch_size, drop_remainder)
    buffer = options.shuffle_buffer

    def epoch_of(number):
        epoch_seed = number + (seed << 20)
        records = source.records(parser, epoch_seed, options)
        shuffled = records.shuffle(buffer, seed=epoch_seed, reshuffle_each_iteration=False)
        batches = shuffled.batch(batch_size, drop_remainder=drop_remainder)
        begin = number * steps
        return batches.enumerate(begin).skip(tf.maximum(first_step - begin, 0))

    if cached:
        records = source.records(parser, seed, options).cache()
        batches = records.shuffle(buffer, seed=seed).batch(batch_size, drop_remainder=drop_remainder)
        return batches.repeat().enumerate().skip(first_step)
    return tf.data.Dataset.range(first_step // steps, tf.int64.max).flat_map(epoch_of)


def parsed_batches(
    batches: tf.data.Dataset,
    parser: ExampleParser,
    seed: int,
    options: Options,
    *,
    change: Change | None = None,
    portion: Portion | None = None,
) -> tf.data.Dataset:
    """Returns what `record_batches` gives, parsed: ({feature: [batch, ...]}, labels, targets).

    Args:
      batches: (step, string [batch]).
      parser: of the records.
      seed: of `change`.
      options: how many batches to parse at a time.
      change: is done to each batch.
      portion: of the batches, one slice per replica after the other; only that is parsed. None: whole batches.
    """
    if portion and portion.total > 1:
        batches = _slices(batches, portion)

    def parse(step, batch):
        return changed(parser(batch), change, seed, step)

    return batches.map(
        parse, num_parallel_calls=options.or_autotune("parallel_calls"), deterministic=options.deterministic
    )


def changed(example: tuple, change: Change | None, seed: int, step: tf.Tensor) -> tuple:
    """Returns the batch (features, labels, targets) of a step as `change` makes it."""
    if not change:
        return example
    return change(example, tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)]))


def slice_size(batch_size, slices: int):
    """Returns the examples in one of `slices` equal slices of a batch, of which the last may be smaller or empty."""
    return -(-batch_size // slices)


def _slices(batches: tf.data.Dataset, portion: Portion) -> tf.data.Dataset:
    """Cuts each batch into equal slices, the last ones smaller or empty, and returns those of the portion in turn.

    The number of a slice stands in the place of the step.
    """

    def cut(step, batch):
        # A batch of a size that is known, as TPUs need them, keeps it known.
        size = slice_size(batch.shape[0] or tf.size(batch, tf.int64), portion.total)

        def slice_of(replica):
            own_slice = batch[replica * size : (replica + 1) * size]
            return step * portion.total + replica, tf.ensure_shape(own_slice, [size]) if batch.shape[0] else own_slice

        own = tf.data.Dataset.range(portion.first, portion.first + portion.count)
        return own.map(slice_of)

    return batches.flat_map(cut)
