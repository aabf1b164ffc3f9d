import re

import numpy as np
import pytest
import tensorflow as tf
from records import SPEC, write

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser, label_spec
from stillhouse.modules.ingestion.files import ExampleFiles, example_files
from stillhouse.modules.ingestion.labels import scan_labels, scan_of
from stillhouse.modules.ingestion.stream import Source
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Shard

PARSER = ExampleParser(SPEC, "label", HEADS["classification"])


def files(tmp_path):
    return ExampleFiles([write(tmp_path / f"{shard}.gz", range(10 * shard, 10 * shard + 10)) for shard in range(3)])


def test_scan_finds_count_and_range_of_labels(tmp_path):
    scan = scan_labels(Source(files(tmp_path)), PARSER)
    assert (scan.examples, scan.smallest, scan.largest) == (30, 0, 29)


def test_scan_looks_at_the_examples_that_are_trained_on(tmp_path):
    assert scan_labels(Source(files(tmp_path), shard=Shard(index=1, of=3)), PARSER).examples == 10
    scan = scan_labels(Source(files(tmp_path), omit_classes=[3, 29]), PARSER)
    assert (scan.examples, scan.largest) == (28, 28)


def test_no_files_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no example files match"):
        example_files([str(tmp_path / "none-*")])


def test_files_without_an_example_are_a_sentence(tmp_path):
    empty = write(tmp_path / "empty.gz", [])
    with pytest.raises(UserError, match=f"the split has no examples .files {re.escape(empty)}"):
        scan_labels(Source(ExampleFiles([empty])), PARSER)


def test_a_label_that_is_no_number_is_counted():
    with pytest.raises(UserError, match="the label 'y' is NaN for 2 examples"):
        scan_of([np.array([1.0, np.nan, np.nan])], ["f"], "y")


def test_a_label_that_preprocessing_did_not_return_is_named():
    with pytest.raises(UserError, match=r"found the features label, x; expected also the label 'tree'"):
        label_spec(SPEC, "tree")


def test_a_label_that_is_no_class_id_is_refused():
    with pytest.raises(UserError, match="expected for the head classification one int64 class id"):
        label_spec({"label": tf.io.FixedLenFeature([], tf.string)}, "label")


@pytest.mark.parametrize(
    ("head", "spec", "message"),
    [
        ("regression", tf.io.FixedLenFeature([], tf.int64), "expected for the head regression one float32 number"),
        ("multi_label", tf.io.FixedLenFeature([], tf.int64), "expected for the head multi_label 0 or 1 for each label"),
    ],
)
def test_a_label_has_to_fit_the_head(head, spec, message):
    with pytest.raises(UserError, match=message):
        label_spec({"label": spec}, "label", HEADS[head])


def test_workers_that_share_files_have_different_ones_and_want_one_each(tmp_path):
    source = Source(files(tmp_path))
    parts = [source.of_worker(index, 2).files.examples for index in range(2)]
    assert sorted(parts[0] + parts[1]) == source.files.examples
    with pytest.raises(UserError, match="found 3 files .*; expected at least 4, one per worker"):
        source.of_worker(0, 4)
