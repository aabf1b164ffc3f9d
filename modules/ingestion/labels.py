"""Scans the labels of a split once, for their number and range."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE, as_written
from stillhouse.modules.ingestion.stream import Source
from stillhouse.modules.settings import Ingestion


@dataclass(frozen=True)
class LabelScan:
    """Number and range of the labels."""

    examples: int
    smallest: float
    largest: float
    per_class: Mapping[int, int] = field(default_factory=dict)  # of class ids; {}: the labels are none


def scan_of(batches: Iterable[np.ndarray], files: Sequence[str], label: str, labelled: bool = True) -> LabelScan:
    """Returns the number and range of a split's labels.

    Args:
      batches: batches of labels.
      files: their files, for messages.
      label: name of the label.
      labelled: whether the examples have labels; if not, they are only counted.

    Raises:
      UserError: the split has no examples, or a label is NaN.
    """
    count, smallest, largest = 0, math.inf, -math.inf
    per_class: Counter[int] = Counter()
    for labels in batches:
        count += len(labels)
        if not len(labels) or not labelled:
            continue
        if not (labels == labels).all():
            raise UserError(f"the label {label!r} is NaN for {(labels != labels).sum()} examples")
        smallest, largest = min(smallest, labels.min().item()), max(largest, labels.max().item())
        if np.issubdtype(labels.dtype, np.integer) and labels.size == len(labels):
            per_class.update(dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True)))
    if not count:
        raise UserError(f"the split has no examples (files {', '.join(files)})")
    return LabelScan(count, smallest, largest, per_class)


def scan_labels(source: Source, parser: ExampleParser, labelled: bool = True) -> LabelScan:
    """Reads and parses all examples once and returns the number and range of their labels.

    Raises:
      UserError: the split has no examples, or a label is NaN.
      tf.errors.DataLossError, tf.errors.InvalidArgumentError: a record is corrupt, or violates the parser's spec.
    """
    batches = source.labelled(parser, None, Ingestion()).batch(RECORDS_AT_ONCE)
    labels = batches.map(
        as_written(lambda records: parser.columns(records)[parser.label]), num_parallel_calls=tf.data.AUTOTUNE
    )
    return scan_of(labels.as_numpy_iterator(), source.files.examples, parser.label, labelled)
