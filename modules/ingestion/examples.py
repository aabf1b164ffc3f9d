"""Parses batches of serialized transformed examples to features, labels and soft targets."""

import math
from collections.abc import Sequence

import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import ExampleFiles, as_written, in_order, read
from stillhouse.modules.ingestion.soft_targets import SoftTargetsCard
from stillhouse.modules.ingestion.views import PARTNER, SHARE, mixed_spec
from stillhouse.modules.models.heads import HEADS, Head


def label_spec(feature_spec: dict, label: str, head: Head = HEADS["classification"]):
    """Returns the parsing spec of the label.

    Raises:
      UserError: preprocessing_fn returned no such feature, or one that is not valid for the head.
    """
    if label not in feature_spec:
        raise UserError(
            f"preprocessing_fn: found the features {', '.join(sorted(feature_spec))}; expected also the label "
            f"{label!r} of the settings (data.label)"
        )
    spec = feature_spec[label]
    fits = isinstance(spec, tf.io.FixedLenFeature) and spec.dtype == head.label_dtype
    if head.label_rank == 2:
        fits = fits and len(spec.shape) == 1
        expected = "0 or 1 for each label, int64 [labels] per example"
    else:
        fits = fits and math.prod(spec.shape) == 1
        expected = (
            "one float32 number per example"
            if head.name == "regression"
            else "one int64 class id per example (for a string label: "
            "tft.compute_and_apply_vocabulary(..., vocab_filename=<the label's name>))"
        )
    if not fits:
        raise UserError(
            f"preprocessing_fn: label {label!r}: found {spec}; expected for the head {head.name} {expected}"
        )
    return spec


def shaped_labels(labels: tf.Tensor, head: Head) -> tf.Tensor:
    """Returns labels [batch, labels] or [batch], as the head requires."""
    return labels if head.label_rank == 2 else tf.reshape(labels, [-1])


class ExampleParser:
    """Parses serialized transformed examples to ({feature: [batch, ...]}, labels, {target: [batch, ...]}).

    An unlabelled example gets `head.no_label`. Without a card of soft targets the targets are empty.
    """

    def __init__(self, feature_spec: dict, label: str, head: Head, card: SoftTargetsCard | None = None):
        """Stores the parsing spec of the transformed features, including the label."""
        spec = feature_spec[label]
        default = tf.io.FixedLenFeature(spec.shape, spec.dtype, [head.no_label] * math.prod(spec.shape))
        self.feature_spec = feature_spec
        self.spec = feature_spec | {label: default} | (card.spec() if card else {})
        self.label, self.head = label, head
        self.card = card
        if card and card.mixed:
            self.spec |= mixed_spec(spec, head)

    @property
    def views(self) -> int:
        """Number of views of each example in the files; 0: the examples are unchanged."""
        return self.card.views if self.card else 0

    @property
    def is_dense(self) -> bool:
        """Whether every example has the same shapes."""
        return all(isinstance(spec, tf.io.FixedLenFeature) for spec in self.spec.values())

    def columns(self, records: tf.Tensor) -> dict:
        """Returns the columns of the records, string [batch], by the names of the spec."""
        return tf.io.parse_example(records, self.spec)

    def example(self, columns: dict) -> tuple[dict, tf.Tensor, dict]:
        """Returns features, labels and targets from the result of `columns`."""
        features = dict(columns)
        targets = self.card.targets_of(features) if self.card else {}
        if PARTNER in features:
            targets[PARTNER] = shaped_labels(features.pop(PARTNER), self.head)
            targets[SHARE] = features.pop(SHARE)
        return features, shaped_labels(features.pop(self.label), self.head), targets

    def __call__(self, records: tf.Tensor) -> tuple[dict, tf.Tensor, dict]:
        """Parses a batch of records, string [batch]."""
        return self.example(self.columns(records))


def first_batch(files: Sequence[str], feature_spec: dict, label: str, head: Head, count: int) -> tuple:
    """Returns at most the first `count` examples, parsed: (features, labels, targets)."""
    return ExampleParser(feature_spec, label, head)(next(iter(read(files).batch(count))))


def labelled_batches(files: ExampleFiles, parser: ExampleParser, batch_size: int) -> tf.data.Dataset:
    """Returns one pass over the examples in their order: (features, labels, targets)."""
    return in_order(files).batch(batch_size).map(as_written(parser), num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)
