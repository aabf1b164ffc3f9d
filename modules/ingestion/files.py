"""Files of examples (TFRecord of tf.Example, gzip'd or plain) and their records."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from stillhouse.modules.errors import UserError

RECORDS_AT_ONCE = 4096
BLOCK = ".block-"  # between the name of a file of examples and the number of a block of its soft targets
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
# For functions of datasets without Python control flow over tensors. AutoGraph would rewrite each, and what it calls of
# ours, in each process anew, for a tenth of a second and more.
as_written = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class ExampleFiles:
    """Files of transformed examples and the folder of their soft targets, if any."""

    examples: list[str]
    soft_targets: str | None = None
    count: int = 0  # number of examples to train on; 0: not counted


def example_files(file_patterns: Sequence[str]) -> list[str]:
    """Returns the files that match the patterns, sorted.

    Raises:
      UserError: no file matches.
    """
    files = sorted(name for pattern in file_patterns for name in tf.io.gfile.glob(pattern))
    if not files:
        raise UserError(f"no example files match {', '.join(file_patterns)}")
    return files


def split_folder(soft_targets: str, split: str) -> str:
    """Returns the folder of a split's soft targets."""
    return os.path.join(soft_targets, f"Split-{split}")


def target_files(example_file: str, folder: str) -> list[str]:
    """Returns the files of soft targets of `example_file` in the split's `folder`, in order."""
    return sorted(tf.io.gfile.glob(os.path.join(folder, os.path.basename(example_file) + BLOCK + "*.gz")))


def compression_of(file: str) -> str:
    """Returns "GZIP" or "", by the file's first bytes and not its name."""
    with tf.io.gfile.GFile(file, "rb") as opened:
        return "GZIP" if opened.read(len(_GZIP)) == _GZIP else ""


def is_parquet(file: str) -> bool:
    """Returns whether a file is Parquet, by its first bytes."""
    with tf.io.gfile.GFile(file, "rb") as opened:
        return opened.read(len(_PARQUET)) == _PARQUET


def read(files: Sequence[str]) -> tf.data.Dataset:
    """Returns the records of TFRecord files, one file after the other."""
    kinds = [compression_of(file) for file in files]
    if len(set(kinds)) <= 1:
        return tf.data.TFRecordDataset(list(files), compression_type=kinds[0] if kinds else "")
    named = tf.data.Dataset.from_tensor_slices((list(files), kinds))
    return named.flat_map(as_written(lambda file, kind: tf.data.TFRecordDataset(file, compression_type=kind)))


def count_records(files: Sequence[str]) -> int:
    """Returns the number of records in TFRecord files."""
    counts = read(files).batch(RECORDS_AT_ONCE).map(as_written(lambda records: tf.size(records, tf.int64)))
    return sum(int(count) for count in counts.as_numpy_iterator())


def named_files(files: ExampleFiles) -> tf.data.Dataset:
    """Returns one element per file, for `records_of_file`."""
    # The target files of one example file are joined to one string: tensors have no ragged rows.
    targets = [
        "\n".join(target_files(name, files.soft_targets)) if files.soft_targets else "" for name in files.examples
    ]
    kinds = [compression_of(name) for name in files.examples]
    return tf.data.Dataset.from_tensor_slices((files.examples, kinds, targets))


def records_of_file(file: tf.Tensor, kind: tf.Tensor, targets: tf.Tensor, paired: bool) -> tf.data.Dataset:
    """Returns the serialized examples of a file, each followed by its soft targets if they are `paired`."""
    examples = tf.data.TFRecordDataset(file, compression_type=kind)
    if not paired:
        return examples
    soft_targets = tf.data.TFRecordDataset(tf.strings.split(targets, "\n"), compression_type="GZIP")
    return tf.data.Dataset.zip((examples, soft_targets)).map(as_written(lambda example, target: example + target))


def in_order(files: ExampleFiles) -> tf.data.Dataset:
    """Returns the records of all files, one file after the other, each followed by its soft targets."""
    paired = files.soft_targets is not None
    return named_files(files).flat_map(
        as_written(lambda file, kind, targets: records_of_file(file, kind, targets, paired))
    )
