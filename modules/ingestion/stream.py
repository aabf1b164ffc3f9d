"""Batches from files that are read in every epoch, interleaved and shuffled through a buffer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles, as_written, named_files, records_of_file
from stillhouse.modules.ingestion.folds import fold_of
from stillhouse.modules.ingestion.options import or_autotune
from stillhouse.modules.settings import Fold, Ingestion, Shard

# Maps a parsed batch (features, labels, targets) and a seed int32 [2], different for each batch, to such a batch, to
# augment or mask it.
Change = Callable[[tuple, tf.Tensor], tuple]


@dataclass(frozen=True)
class Portion:
    """The equal slices of every global batch of the replicas `first` to `first + count - 1`, out of `total`."""

    first: int
    count: int
    total: int


def portion_of(context: tf.distribute.InputContext) -> Portion:
    """Returns the portion of one input pipeline of a synchronous strategy."""
    count = context.num_replicas_in_sync // context.num_input_pipelines
    return Portion(context.input_pipeline_id * count, count, context.num_replicas_in_sync)


@dataclass(frozen=True)
class Source:
    """The examples of a training job; unlabelled transfer examples are mixed evenly among the labelled ones."""

    files: ExampleFiles
    transfer: ExampleFiles | None = None
    shard: Shard | None = None  # of the labelled examples; None: all
    omit_classes: Sequence[int] = ()  # labelled examples of these classes are skipped
    held_out: Fold | None = None  # labelled examples of this fold are skipped; requires files without soft targets

    @property
    def count(self) -> int:
        """Number of examples of an epoch; requires counted files."""
        return self.files.count + (self.transfer.count if self.transfer else 0)

    def of_worker(self, index: int, workers: int) -> "Source":
        """Returns the source with every `workers`-th file from `index` on.

        Raises:
          UserError: the source has fewer files than workers.
        """

        def own(files):
            if len(files.examples) < workers:
                raise UserError(
                    f"ingestion.sharding: file: found {len(files.examples)} files ({files.examples[0]}, ...); expected "
                    f"at least {workers}, one per worker; set sharding: batch"
                )
            return replace(files, examples=files.examples[index::workers])

        return replace(self, files=own(self.files), transfer=self.transfer and own(self.transfer))

    def labelled(self, parser: ExampleParser, seed: tf.Tensor | int | None, options: Ingestion) -> tf.data.Dataset:
        """Returns the serialized examples without the transfer examples; seed None: files in their order."""
        # Shards are disjoint only if all of them see the files in one order.
        records = _interleaved(self.files, None if self.shard else seed, options)
        if fold := self.held_out:
            records = records.filter(as_written(lambda record: fold_of(record, fold.of) != fold.index))
        if self.shard:
            records = records.shard(self.shard.of, self.shard.index)
        if self.omit_classes:
            only_label = {parser.label: parser.spec[parser.label]}
            omitted = tf.constant(list(self.omit_classes), tf.int64)

            def is_kept(record):
                class_id = tf.reshape(tf.io.parse_single_example(record, only_label)[parser.label], [])
                return tf.reduce_all(class_id != omitted)

            records = records.filter(as_written(is_kept))
        return records

    def records(self, parser: ExampleParser, seed: tf.Tensor | int, options: Ingestion) -> tf.data.Dataset:
        """Returns the serialized examples of an epoch, files in the order of the seed."""
        labelled = self.labelled(parser, seed, options)
        if not self.transfer:
            return labelled
        return tf.data.Dataset.sample_from_datasets(
            [labelled, _interleaved(self.transfer, seed, options)],
            weights=[float(self.files.count), float(self.transfer.count)],
            seed=seed,
        )


def _interleaved(files: ExampleFiles, seed: tf.Tensor | int | None, options: Ingestion) -> tf.data.Dataset:
    """Returns the serialized examples of several files at a time, each followed by its soft targets."""
    named = named_files(files)
    if seed is not None:
        named = named.shuffle(len(files.examples), seed=seed, reshuffle_each_iteration=False)
    paired = files.soft_targets is not None
    return named.interleave(
        as_written(lambda file, kind, targets: records_of_file(file, kind, targets, paired)),
        cycle_length=or_autotune(options.interleave_files),
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
    options: Ingestion,
    *,
    first_step: int = 0,
    drop_remainder: bool = False,
    cached: bool = False,
) -> tf.data.Dataset:
    """Returns shuffled batches of serialized examples, an infinite sequence of epochs: (step, string [batch]).

    The order is a function of the seed and the epoch number, with soft targets and without. A training job resumed at a
    step gets exactly the batches of an uninterrupted one: earlier batches of the epoch are shuffled and skipped, not
    parsed; earlier epochs are not read.

    Args:
      source: the examples.
      parser: the parser of the label, for omitted classes.
      batch_size: examples per (global) batch; the last batch of an epoch may be smaller.
      seed: seed of the shuffling.
      options: the settings of reading.
      first_step: number of the first step; earlier ones are skipped.
      drop_remainder: skip the last batch of an epoch if it is smaller.
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
    return tf.data.Dataset.range(first_step // steps, tf.int64.max).flat_map(as_written(epoch_of))


def parsed_batches(
    batches: tf.data.Dataset,
    parser: ExampleParser,
    seed: int,
    options: Ingestion,
    *,
    change: Change | None = None,
    portion: Portion | None = None,
) -> tf.data.Dataset:
    """Returns the batches of `record_batches`, parsed: ({feature: [batch, ...]}, labels, targets).

    Args:
      batches: (step, string [batch]).
      parser: the parser of the records.
      seed: seed of `change`.
      options: the settings of reading.
      change: applied to each batch.
      portion: the slices to return, one per replica in turn; only these are parsed. None: whole batches.
    """
    if portion and portion.total > 1:
        batches = _slices(batches, portion)

    def parse(step, batch):
        return changed(parser(batch), change, seed, step)

    # A change may be the user's, with Python control flow over tensors.
    return batches.map(
        parse if change else as_written(parse),
        num_parallel_calls=or_autotune(options.parallel_calls),
        deterministic=options.deterministic,
    )


def changed(example: tuple, change: Change | None, seed: int, step: tf.Tensor) -> tuple:
    """Returns the batch (features, labels, targets) of a step after `change`."""
    if not change:
        return example
    return change(example, tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)]))


def slice_size(batch_size, slices: int):
    """Returns the number of examples in one of `slices` equal slices of a batch; the last may be smaller or empty."""
    return -(-batch_size // slices)


def _slices(batches: tf.data.Dataset, portion: Portion) -> tf.data.Dataset:
    """Cuts each batch into equal slices, the last ones smaller or empty, and returns those of the portion in turn.

    The slice number replaces the step.
    """

    def cut(step, batch):
        # A static batch size, which TPUs require, stays static.
        size = slice_size(batch.shape[0] or tf.size(batch, tf.int64), portion.total)

        def slice_of(replica):
            own_slice = batch[replica * size : (replica + 1) * size]
            return step * portion.total + replica, tf.ensure_shape(own_slice, [size]) if batch.shape[0] else own_slice

        replicas = tf.data.Dataset.range(portion.first, portion.first + portion.count)
        return replicas.map(as_written(slice_of))

    return batches.flat_map(as_written(cut))
