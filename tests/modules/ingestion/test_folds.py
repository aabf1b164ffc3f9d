"""Folds of the labelled examples: what a training job that holds one out reads, and which folds are refused."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from records import SPEC, example, write

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.folds import check_folds, fold_of
from stillhouse.modules.ingestion.in_memory import Columns
from stillhouse.modules.ingestion.labels import scan_labels
from stillhouse.modules.ingestion.on_disk import on_disk
from stillhouse.modules.ingestion.stream import Source, parsed_batches, record_batches
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Fold, Ingestion

PARSER = ExampleParser(SPEC, "label", HEADS["classification"])
EXAMPLES, FOLDS = 60, 4


@pytest.fixture
def source(tmp_path):
    """Three files of 20 examples; the label of example i is i."""
    names = [write(tmp_path / f"{part}.gz", range(20 * part, 20 * part + 20)) for part in range(3)]
    return Source(ExampleFiles(names))


def members(fold):
    """Returns the examples of a fold, each hashed alone."""
    return [i for i in range(EXAMPLES) if int(fold_of(tf.constant(example(i)), FOLDS)) == fold]


def from_memory(source, folder):
    return sorted(Columns.load(source.files, PARSER, held_out=source.held_out).labels.tolist())


def from_files(source, folder):
    count = scan_labels(source, PARSER).examples
    source = replace(source, files=replace(source.files, count=count))
    records = record_batches(source, PARSER, 7, 3, Ingestion())
    batches = parsed_batches(records, PARSER, 3, Ingestion()).take(-(-count // 7))
    return sorted(label for _, labels, _ in batches.as_numpy_iterator() for label in labels)


def from_disk(source, folder):
    return from_files(replace(source, files=on_disk(source.files, str(folder / "cache"))), folder)


@pytest.mark.parametrize("read", [from_memory, from_files, from_disk])
def test_a_training_job_reads_all_examples_but_those_of_its_fold(source, tmp_path, read):
    for fold in range(FOLDS):
        held_out = replace(source, held_out=Fold(index=fold, of=FOLDS))
        assert read(held_out, tmp_path) == sorted(set(range(EXAMPLES)) - set(members(fold)))


def test_every_example_is_in_one_fold_and_no_fold_is_much_larger_than_another():
    sizes = [len(members(fold)) for fold in range(FOLDS)]
    assert sum(sizes) == EXAMPLES
    assert min(sizes) > EXAMPLES / FOLDS / 3


def test_the_fold_of_an_example_does_not_depend_on_the_others():
    records = tf.constant([example(i) for i in range(EXAMPLES)])
    together = fold_of(records, FOLDS).numpy()
    assert [int(fold_of(record, FOLDS)) for record in records] == together.tolist()
    np.testing.assert_array_equal(fold_of(records[::-1], FOLDS), together[::-1])


def labelled(folder, labels):
    """Returns files of different examples with these labels."""
    path = str(folder / "labelled")
    with tf.io.TFRecordWriter(path) as writer:
        for number, label in enumerate(labels):
            one = tf.train.Example.FromString(example(number, labelled=False))
            one.features.feature["label"].int64_list.value.append(label)
            writer.write(one.SerializeToString(deterministic=True))
    return ExampleFiles([path])


def test_more_folds_than_examples_of_a_class_are_refused_with_both_numbers(tmp_path):
    files = labelled(tmp_path, [0] * 40 + [1] * 40 + [2] * 3)
    message = r"folds: found 4; expected at most 3 \(labelled examples of class 2\); lower it, add examples, or remove"
    with pytest.raises(UserError, match=message):
        check_folds(files, PARSER, 4)
    check_folds(labelled(tmp_path, [0] * 40 + [1] * 40), PARSER, 4)


def test_more_folds_than_examples_are_refused_whatever_the_head(tmp_path):
    parser = ExampleParser(SPEC | {"label": tf.io.FixedLenFeature([], tf.float32)}, "label", HEADS["regression"])
    path = str(tmp_path / "numbers")
    with tf.io.TFRecordWriter(path) as writer:
        for number in range(5):
            writer.write(example(number, labelled=False, label=[float(number)]))
    with pytest.raises(UserError, match=r"folds: found 6; expected at most 5 \(labelled examples\)"):
        check_folds(ExampleFiles([path]), parser, 6)
    check_folds(ExampleFiles([path]), parser, 2)


def test_a_class_whose_examples_are_all_in_one_fold_is_refused(tmp_path):
    """All examples of class 99 are copies of one."""
    others, copies = labelled(tmp_path, [0] * 30).examples, write(tmp_path / "copies.gz", [99] * 6)
    with pytest.raises(UserError, match=r"folds: found all 6 labelled examples of class 99 in one of 3 folds"):
        check_folds(ExampleFiles([*others, copies]), PARSER, 3)
