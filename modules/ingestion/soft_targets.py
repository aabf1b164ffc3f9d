"""Cached soft targets: the teachers' predictions on each example, in files parallel to the examples' files.

Each file of examples has one or more files of targets, whose names begin with the name of that file and whose
concatenation, in the order of their names, has one record per example in the examples' order. A record is a tf.Example
with the fingerprint of its example and the teachers' predictions:

  soft_target/example        int64, fingerprint of the serialized example
  soft_target/logits         [teachers * outputs] floats, or bytes as `modules.ingestion.compact` packs them
  soft_target/hidden/N/LAYER a hidden state of teacher N: floats, or the bytes of as many float16

Where the teachers were asked about views of the examples, the folder has them too, in files parallel to the examples'
files: Views-SPLIT/FILE.view-K-of-N.block-B-of-M.gz holds view K of a block of FILE, and the targets belong to these.

An example and its targets, concatenated in one string, are a tf.Example with the features of both, as protocol buffers
define it; so they pass through the input pipeline as one record and are parsed at once.
"""

import json
import math
import os
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.compact import unpack_logits
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE, as_written, example_files, read, target_files
from stillhouse.modules.models.teachers import LOGITS

CARD = "soft_targets.json"
PREFIX = "soft_target/"  # of features in the files
KEY = "example"
VIEW = ".view-"  # between the name of a file of examples and the number of a view of them
_BUCKETS = 2**62  # of the fingerprint, FarmHash64


@dataclass(frozen=True)
class SoftTargetsCard:
    """Content of a folder of soft targets."""

    teachers: list[str]  # names
    dtype: str  # float32, float16 or int8
    shapes: dict[str, list[int]]  # of each target, without the batch; logits: [teachers, outputs]
    examples: int  # in all splits
    bytes: dict[str, int]  # size of the files, by split
    views: int = 0  # of each example, in files of their own (`view_files`); 0: the examples are unchanged
    mixed: bool = False  # whether the views are of mixup
    top: int | None = None  # number of largest logits in the files; None: all
    folds: int | None = None  # of the train split, whose targets are from teachers trained without the example's fold
    # What compact logits change in the mean of the teachers' distributions at T = 1, over all examples: "agreement",
    # the share with the same class, and "kl" in nats, from the float32 logits' distribution to the compact one's.
    compaction: dict[str, float] | None = None

    @property
    def decoded_bytes(self) -> int:
        """Size in bytes of the targets in memory."""
        return self.examples * 4 * sum(math.prod(shape) for shape in self.shapes.values())

    def write(self, folder: str) -> None:
        """Writes the card into `folder`."""
        with tf.io.gfile.GFile(os.path.join(folder, CARD), "w") as file:
            json.dump(asdict(self), file, indent=1)

    def spec(self) -> dict:
        """Returns the parsing spec of the targets in a record."""
        packed, plain = tf.io.FixedLenFeature([], tf.string), tf.float32
        return {
            PREFIX + name: packed if is_packed(name, self.dtype, self.top) else tf.io.FixedLenFeature(shape, plain)
            for name, shape in self.shapes.items()
        }

    def targets_of(self, parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Removes the features of `spec` from parsed records and returns {target: float32 [batch, ...]}."""
        targets = {}
        for name, shape in self.shapes.items():
            target = parsed.pop(PREFIX + name)
            if name == LOGITS and is_packed(name, self.dtype, self.top):
                target = unpack_logits(target, shape, self.dtype, self.top)
            elif is_packed(name, self.dtype, self.top):
                target = tf.reshape(tf.cast(tf.io.decode_raw(target, tf.float16), tf.float32), [-1, *shape])
            targets[name] = target
        return targets


def is_packed(target: str, dtype: str, top: int | None) -> bool:
    """Returns whether a target is bytes in its record; `top` is about the logits alone."""
    return dtype != "float32" or (top is not None and target == LOGITS)


def read_soft_targets_card(folder: str) -> SoftTargetsCard:
    """Returns the card of a folder of soft targets.

    Raises:
      UserError: the folder has no valid card.
    """
    try:
        with tf.io.gfile.GFile(os.path.join(folder, CARD)) as file:
            return SoftTargetsCard(**json.load(file))
    except (tf.errors.NotFoundError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: no valid soft targets: {CARD} is missing or corrupt") from error


def views_folder(soft_targets: str, split: str) -> str:
    """Returns the folder of the views of a split's examples."""
    return os.path.join(soft_targets, f"Views-{split}")


def view_files(soft_targets: str, split: str, view: int | None = None) -> list[str]:
    """Returns the files with views of a split's examples, to which the soft targets belong.

    Args:
      soft_targets: folder of the soft targets.
      split: name of the split.
      view: number of the view, from 0; None: all.

    Raises:
      UserError: there are none.
    """
    which = "*" if view is None else f"*{VIEW}{view:05d}-of-*"
    return example_files([os.path.join(views_folder(soft_targets, split), which)])


def fingerprints(records: tf.Tensor) -> tf.Tensor:
    """Returns the fingerprint of each serialized example, int64 [batch]."""
    return tf.strings.to_hash_bucket_fast(records, _BUCKETS)


def _values(files: list[str], values) -> np.ndarray:
    if not files:
        return np.zeros([0], np.int64)
    batches = list(
        read(files)
        .batch(RECORDS_AT_ONCE)
        .map(as_written(values), num_parallel_calls=tf.data.AUTOTUNE)
        .as_numpy_iterator()
    )
    return np.concatenate(batches) if batches else np.zeros([0], np.int64)


def check_match(example_files: list[str], folder: str, card: SoftTargetsCard) -> None:
    """Checks that the targets in the split's `folder` belong to the examples: count, keys, order.

    Raises:
      UserError: they do not, or a file of targets is corrupt; the message names file and fault.
    """
    spec = card.spec() | {PREFIX + KEY: tf.io.FixedLenFeature([], tf.int64)}
    for file in example_files:
        targets = target_files(file, folder)
        try:
            target_keys = _values(targets, lambda records: tf.io.parse_example(records, spec)[PREFIX + KEY])
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            raise UserError(f"soft targets of {file}: corrupt: {error.message.splitlines()[0]}") from error
        example_keys = _values([file], fingerprints)
        remedy = "; recreate them (remove the SoftTargets folder below --root, or set another --root)"
        if len(target_keys) != len(example_keys):
            counts = f"found {len(target_keys)} targets; expected {len(example_keys)}, one per example"
            raise UserError(f"soft targets of {file}: {counts}{remedy}")
        differing = np.flatnonzero(target_keys != example_keys)
        if not len(differing):
            continue
        if np.array_equal(np.sort(target_keys), np.sort(example_keys)):
            raise UserError(f"soft targets of {file}: in another order, from example {differing[0] + 1} on{remedy}")
        raise UserError(
            f"soft targets of {file}: {len(differing)} of {len(example_keys)} belong to other examples, the first at "
            f"example {differing[0] + 1}{remedy}"
        )
