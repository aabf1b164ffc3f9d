"""tf.data input pipelines over transformed examples (gzip'd TFRecord files of tf.Example)."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from modules.distillation.soft_targets import SoftTargetsCard, target_files
from modules.errors import UserError
from modules.heads import HEADS, Head

SHUFFLE_BUFFER = 10_000
SCAN_BATCH = 4096

Augment = Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]]


@dataclass(frozen=True)
class ExampleFiles:
    """Files of transformed examples and, where there are any, the folder of their soft targets."""

    examples: list[str]
    soft_targets: str | None = None
    count: int = 0  # of the examples that are trained on; 0: not counted


@dataclass(frozen=True)
class Shard:
    """One of `of` equal parts of the examples: every of-th example from `index` on."""

    index: int
    of: int


@dataclass(frozen=True)
class Portion:
    """What replicas `first` to `first + count - 1` of `of` take: their equal slices of every global batch."""

    first: int
    count: int
    of: int


def portion_of(context: tf.distribute.InputContext) -> Portion:
    """Returns the portion of one input pipeline of a synchronous strategy."""
    count = context.num_replicas_in_sync // context.num_input_pipelines
    return Portion(context.input_pipeline_id * count, count, context.num_replicas_in_sync)


@dataclass(frozen=True)
class LabelScan:
    """What one pass over the labels of a split finds."""

    examples: int
    smallest: float
    largest: float


def example_files(file_patterns: Sequence[str]) -> list[str]:
    """Returns the files that match the patterns, sorted.

    Raises:
      UserError: there are none.
    """
    files = sorted(name for pattern in file_patterns for name in tf.io.gfile.glob(pattern))
    if not files:
        raise UserError(f"no example files match {', '.join(file_patterns)}")
    return files


def _read(files: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, compression_type="GZIP")


def _records(files: ExampleFiles, seed: int | None) -> tf.data.Dataset:
    """Returns the serialized examples, each with its soft targets behind it."""
    names: tuple = (files.examples,)
    if files.soft_targets:
        # Files of targets of one file of examples travel as one string: tensors have no ragged rows.
        names += (["\n".join(target_files(name, files.soft_targets)) for name in files.examples],)
    dataset = tf.data.Dataset.from_tensor_slices(names)
    if seed is not None:
        dataset = dataset.shuffle(len(files.examples), seed=seed)

    def read(example_file, targets=None):
        examples = _read(example_file)
        if targets is None:
            return examples
        pairs = tf.data.Dataset.zip((examples, _read(tf.strings.split(targets, "\n"))))
        return pairs.map(lambda example, target: example + target)

    return dataset.interleave(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def label_spec(feature_spec: dict, label: str, head: Head = HEADS["classification"]):
    """Returns the parsing spec of the label.

    Raises:
      UserError: preprocessing_fn returned no such feature, or one that does not fit the head.
    """
    if label not in feature_spec:
        raise UserError(
            f"preprocessing_fn returned no feature {label!r}, the label of the settings (data.label); "
            f"it returned: {', '.join(sorted(feature_spec))}"
        )
    spec = feature_spec[label]
    fits = isinstance(spec, tf.io.FixedLenFeature) and spec.dtype == head.label_dtype
    if head.label_rank == 2:
        fits = fits and len(spec.shape) == 1
        wanted = "0 or 1 for each label, int64 [labels] per example"
    else:
        fits = fits and math.prod(spec.shape) == 1
        wanted = (
            "one float32 number per example"
            if head.name == "regression"
            else "one int64 class id per example (for a string label: "
            "tft.compute_and_apply_vocabulary(..., vocab_filename=<the label's name>))"
        )
    if not fits:
        raise UserError(
            f"preprocessing_fn returned the label {label!r} as {spec}; for the head {head.name} it must be {wanted}"
        )
    return spec


def _shaped(labels: tf.Tensor, head: Head) -> tf.Tensor:
    return labels if head.label_rank == 2 else tf.reshape(labels, [-1])


def scan_labels(
    file_patterns: Sequence[str],
    feature_spec: dict,
    label: str,
    head: Head = HEADS["classification"],
    shard: Shard | None = None,
    omit_classes: Sequence[int] = (),
) -> LabelScan:
    """Reads the labels alone, once, and returns their count, smallest and largest value.

    Raises:
      UserError: there are no files or no examples, or a label is no number.
    """
    only_label = {label: label_spec(feature_spec, label, head)}
    files = ExampleFiles(example_files(file_patterns))
    dataset = _chosen(_records(files, seed=None), only_label, label, shard, omit_classes).batch(SCAN_BATCH)
    dataset = dataset.map(
        lambda records: _shaped(tf.io.parse_example(records, only_label)[label], head),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    count, smallest, largest = 0, math.inf, -math.inf
    for labels in dataset.as_numpy_iterator():
        if not (labels == labels).all():
            raise UserError(f"the label {label!r} is NaN for {(labels != labels).sum()} examples")
        count += len(labels)
        smallest, largest = min(smallest, labels.min().item()), max(largest, labels.max().item())
    if not count:
        raise UserError(f"the split has no examples (files {', '.join(file_patterns)})")
    return LabelScan(count, smallest, largest)


def count_records(files: Sequence[str]) -> int:
    """Returns the number of records in gzip'd TFRecord files."""
    counts = _read(list(files)).batch(SCAN_BATCH).map(lambda records: tf.size(records, tf.int64))
    return sum(int(count) for count in counts.as_numpy_iterator())


def _chosen(
    records: tf.data.Dataset, only_label: dict, label: str, shard: Shard | None, omit_classes: Sequence[int]
) -> tf.data.Dataset:
    if shard:
        records = records.shard(shard.of, shard.index)
    if omit_classes:
        omitted = tf.constant(list(omit_classes), tf.int64)

        def is_kept(record):
            found = tf.reshape(tf.io.parse_single_example(record, only_label)[label], [])
            return tf.reduce_all(found != omitted)

        records = records.filter(is_kept)
    return records


def parse_examples(
    records: tf.Tensor, feature_spec: dict, label: str, head: Head, card: SoftTargetsCard | None = None
) -> tuple[dict, tf.Tensor, dict]:
    """Returns ({feature: [batch, ...]}, labels, {target: float32 [batch, ...]}) of serialized transformed examples.

    An example that has no label gets `head.no_label`. Without a card of soft targets the targets are empty.
    """
    spec = feature_spec[label]
    default = tf.io.FixedLenFeature(spec.shape, spec.dtype, [head.no_label] * math.prod(spec.shape))
    features = tf.io.parse_example(records, feature_spec | {label: default} | (card.spec() if card else {}))
    targets = card.targets_of(features) if card else {}
    return features, _shaped(features.pop(label), head), targets


def first_features(files: Sequence[str], feature_spec: dict, label: str, head: Head, count: int) -> dict:
    """Returns the features {name: [examples, ...]} of the first `count` examples at the most."""
    records = next(iter(_read(list(files)).batch(count)))
    return parse_examples(records, feature_spec, label, head)[0]


def record_batches(
    files: ExampleFiles,
    feature_spec: dict,
    label: str,
    batch_size: int,
    seed: int,
    *,
    transfer: ExampleFiles | None = None,
    shard: Shard | None = None,
    omit_classes: Sequence[int] = (),
    first_step: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Returns shuffled batches of serialized examples, epoch after epoch without end: (step, string [batch]).

    Records are cached in memory as they stand in the files (compact, read and decompressed once) and parsed by
    the batch. The order is a function of the seed and differs from epoch to epoch; it is the same with soft targets
    and without. One iterator serves all epochs, because making one takes longer than an epoch of a small data set.

    A training that is resumed at a step gets exactly the batches that it would have got: those before are shuffled
    and passed over, not parsed.

    Args:
      files: the labelled examples, and their soft targets; counted if there is a transfer set.
      feature_spec: parsing spec of the transformed features, the label's included.
      label: name of the label feature.
      batch_size: examples in a (global) batch; the last batch of an epoch may be smaller.
      seed: seed of the shuffling.
      transfer: more examples, without labels, counted, mixed evenly among the others.
      shard: the part of the labelled examples to take; None: all.
      omit_classes: labelled examples of these classes are left out.
      first_step: the steps before it are left out.
      drop_remainder: leave out the last batch of an epoch if it is smaller.
    """
    # Shards are disjoint only if all of them see the files in one order.
    records = _records(files, None if shard else seed)
    records = _chosen(records, {label: feature_spec[label]}, label, shard, omit_classes)
    if transfer:
        records = tf.data.Dataset.sample_from_datasets(
            [records, _records(transfer, seed)], weights=[float(files.count), float(transfer.count)], seed=seed
        )

    batches = records.cache().shuffle(SHUFFLE_BUFFER, seed=seed).batch(batch_size, drop_remainder=drop_remainder)
    return batches.repeat().enumerate().skip(first_step)


def parsed_batches(
    batches: tf.data.Dataset,
    feature_spec: dict,
    label: str,
    seed: int,
    *,
    head: Head = HEADS["classification"],
    card: SoftTargetsCard | None = None,
    augment: Augment | None = None,
    portion: Portion | None = None,
) -> tf.data.Dataset:
    """Returns what `record_batches` gives, parsed: ({feature: [batch, ...]}, labels, targets).

    Args:
      batches: (step, string [batch]).
      feature_spec: parsing spec of the transformed features, the label's included.
      label: name of the label feature.
      seed: of `augment`.
      head: how to read the label; examples without one get `head.no_label`.
      card: describes the soft targets; targets is then {name: float32 [batch, ...]}, else it is empty.
      augment: called with the features and a seed int32 [2] that differs from batch to batch; returns the features.
      portion: of the batches, one slice per replica after the other; only that is parsed. None: whole batches.
    """
    if portion and portion.of > 1:
        batches = _slices(batches, portion)

    def parse(step, batch):
        features, labels, targets = parse_examples(batch, feature_spec, label, head, card)
        if augment:
            features = augment(features, tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)]))
        return features, labels, targets

    batches = batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _slices(batches: tf.data.Dataset, portion: Portion) -> tf.data.Dataset:
    """Cuts each batch into equal slices, the last ones smaller or empty, and returns those of the portion in turn.

    The number of a slice stands in the place of the step.
    """

    def cut(step, batch):
        # A batch of a size that is known, as TPUs need them, keeps it known.
        size = -(-batch.shape[0] // portion.of) if batch.shape[0] else -(-tf.size(batch, tf.int64) // portion.of)

        def slice_of(replica):
            found = batch[replica * size : (replica + 1) * size]
            return step * portion.of + replica, tf.ensure_shape(found, [size]) if batch.shape[0] else found

        own = tf.data.Dataset.range(portion.first, portion.first + portion.count)
        return own.map(slice_of)

    return batches.flat_map(cut)


def labelled_batches(
    files: ExampleFiles, feature_spec: dict, label: str, head: Head, card: SoftTargetsCard, batch_size: int
) -> tf.data.Dataset:
    """Returns one pass over the examples in their order, as `parsed_batches` gives them."""

    def parse(records):
        return parse_examples(records, feature_spec, label, head, card)

    return _records(files, seed=None).batch(batch_size).map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)


def split_folder(soft_targets: str, split: str) -> str:
    """Returns the folder of a split's soft targets."""
    return os.path.join(soft_targets, f"Split-{split}")
