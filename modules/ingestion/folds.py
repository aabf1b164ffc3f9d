"""Folds of the labelled examples, for targets from teachers that have not seen the example.

The fold of an example is a function of its serialized, transformed record, so that it depends neither on the place of
the example nor on the order of reading, and duplicates are in one fold.
"""

from collections import Counter, defaultdict

import numpy as np
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE, ExampleFiles, as_written, in_order
from stillhouse.modules.ingestion.soft_targets import fingerprints
from stillhouse.modules.settings import Fold

KEY = "student.distillation.folds"


def fold_of(records: tf.Tensor, folds: int) -> tf.Tensor:
    """Returns the fold, from 0, of each serialized example, int64 of the same shape."""
    return fingerprints(records) % folds


def without(records: tf.Tensor, held_out: Fold | None) -> tf.Tensor:
    """Returns the serialized examples, string [batch], without those of the fold; None: all."""
    if held_out is None:
        return records
    return tf.boolean_mask(records, fold_of(records, held_out.of) != held_out.index)


def check_folds(files: ExampleFiles, parser: ExampleParser, count: int) -> None:
    """Checks that the training part of every fold has examples, and for classification some of every class.

    Args:
      files: the labelled examples, which are read once.
      parser: of the examples.
      count: number of folds.

    Raises:
      UserError: there are more folds than examples (of a class), or one fold has all of them.
    """
    only_label = {parser.label: parser.spec[parser.label]}

    def fold_and_label(records):
        return fold_of(records, count), tf.io.parse_example(records, only_label)[parser.label]

    batches = in_order(files).batch(RECORDS_AT_ONCE).map(as_written(fold_and_label))
    examples: Counter[str] = Counter()
    folds_of_group: dict[str, set[int]] = defaultdict(set)
    for folds, labels in batches.as_numpy_iterator():
        groups = {"labelled examples": np.full(len(folds), True)}
        if parser.head.name == "classification":
            classes = labels.reshape(-1)
            known = np.unique(classes[classes >= 0])  # others are refused where labels are checked
            groups |= {f"labelled examples of class {number}": classes == number for number in known}
        for name, members in groups.items():
            examples[name] += int(members.sum())
            folds_of_group[name].update(folds[members].tolist())
    for name, number in examples.items():
        if number < count:
            raise UserError(
                f"{KEY}: found {count}; expected at most {number} ({name}); lower it, add examples, or remove it"
            )
        if len(folds_of_group[name]) == 1:
            raise UserError(
                f"{KEY}: found all {number} {name} in one of {count} folds, whose teachers would see none (duplicates "
                "share a fold); add examples, change the number of folds, or remove it"
            )
