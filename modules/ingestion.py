"""tf.data input pipelines over transformed examples (gzip'd TFRecord files of tf.Example)."""

from dataclasses import dataclass

import tensorflow as tf

from modules.errors import UserError

SHUFFLE_BUFFER = 10_000


@dataclass(frozen=True)
class LabelScan:
    """What one pass over the labels of a split finds."""

    examples: int
    smallest: int
    largest: int


def _records(file_patterns: list[str], seed: int | None) -> tf.data.Dataset:
    files = sorted(name for pattern in file_patterns for name in tf.io.gfile.glob(pattern))
    if not files:
        raise UserError(f"no example files match {', '.join(file_patterns)}")
    dataset = tf.data.Dataset.from_tensor_slices(files)
    if seed is not None:
        dataset = dataset.shuffle(len(files), seed=seed)
    return dataset.interleave(
        lambda name: tf.data.TFRecordDataset(name, compression_type="GZIP"),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def label_spec(feature_spec: dict, label: str):
    """Returns the parsing spec of the label.

    Raises:
      UserError: preprocessing_fn returned no such feature, or one that is not a single integer.
    """
    if label not in feature_spec:
        raise UserError(
            f"preprocessing_fn returned no feature {label!r}, the label of the settings (data.label); "
            f"it returned: {', '.join(sorted(feature_spec))}"
        )
    spec = feature_spec[label]
    if not isinstance(spec, tf.io.FixedLenFeature) or spec.dtype != tf.int64 or len(spec.shape) > 1:
        raise UserError(
            f"preprocessing_fn returned the label {label!r} as {spec}; it must be one int64 class id per example "
            "(for a string label: tft.compute_and_apply_vocabulary(..., vocab_filename=<the label's name>))"
        )
    return spec


def scan_labels(file_patterns: list[str], feature_spec: dict, label: str) -> LabelScan:
    """Reads the labels alone, once, and returns their count, smallest and largest class id.

    Raises:
      UserError: there are no files or no examples.
    """
    only_label = {label: label_spec(feature_spec, label)}
    dataset = _records(file_patterns, seed=None).batch(4096)
    dataset = dataset.map(
        lambda records: tf.reshape(tf.io.parse_example(records, only_label)[label], [-1]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    count, smallest, largest = 0, None, None
    for labels in dataset.as_numpy_iterator():
        count += len(labels)
        smallest = int(labels.min()) if smallest is None else min(smallest, int(labels.min()))
        largest = int(labels.max()) if largest is None else max(largest, int(labels.max()))
    if not count:
        raise UserError(f"the split has no examples (files {', '.join(file_patterns)})")
    return LabelScan(count, smallest, largest)


def training_dataset(
    file_patterns: list[str], feature_spec: dict, label: str, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Returns shuffled batches, epoch after epoch without end: ({feature: [batch, ...]}, label int64 [batch]).

    Records are cached in memory as they stand in the files (compact, read and decompressed once) and parsed by
    the batch. The order is a function of the seed and differs from epoch to epoch. One iterator serves all epochs,
    because making one takes longer than an epoch of a small data set.

    Args:
      file_patterns: gzip'd TFRecord files of transformed examples.
      feature_spec: parsing spec of the transformed features, the label's included.
      label: name of the label feature.
      batch_size: examples in a (global) batch; the last batch of an epoch may be smaller.
      seed: seed of the shuffling.
    """

    def parse(records):
        features = tf.io.parse_example(records, feature_spec)
        labels = tf.reshape(features.pop(label), [-1])
        return features, labels

    return (
        _records(file_patterns, seed)
        .cache()
        .shuffle(SHUFFLE_BUFFER, seed=seed)
        .batch(batch_size)
        .repeat()
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )
