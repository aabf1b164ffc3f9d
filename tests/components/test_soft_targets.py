"""Soft targets of the finished run's teachers, written by the executor as in a pipeline."""

import json
import shutil

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, artifact, network, training_config
from tfx.types import standard_artifacts

from stillhouse.components.record_blocks import WriteBlocks
from stillhouse.components.soft_targets.executor import Executor, SoftTargetsParameters
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser, labelled_batches
from stillhouse.modules.ingestion.files import ExampleFiles, example_files
from stillhouse.modules.ingestion.soft_targets import check_match, read_soft_targets_card, target_files
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.teachers import Teacher
from stillhouse.modules.training.train import train
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


WORKER_PROCESSES = [
    *BEAM_OPTIONS,
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
]


def write_targets(run, folder, models=None, dtype="float32", batch_size=64, beam_options=BEAM_OPTIONS):
    targets = artifact(standard_artifacts.Examples, folder)
    parameters = SoftTargetsParameters(label="tree", head="classification", dtype=dtype, batch_size=batch_size)
    context = Executor.Context(beam_pipeline_args=list(beam_options))
    Executor(context).Do(run.inputs(models or run.teachers()), {"soft_targets": [targets]}, parameters.properties())
    return folder


@pytest.fixture(scope="module")
def targets(run, tmp_path_factory):
    return write_targets(run, tmp_path_factory.mktemp("targets"))


def files_of(run):
    return example_files([str(run.examples / "Split-train" / "*")])


def all_targets(run, folder):
    card = read_soft_targets_card(str(folder))
    files = ExampleFiles(files_of(run), str(folder / "Split-train"))
    spec = run.transform.transformed_feature_spec()
    return next(iter(labelled_batches(files, ExampleParser(spec, "tree", HEADS["classification"], card), 10_000)))


def test_the_targets_are_what_the_teachers_say_about_each_example_in_order(run, targets):
    features, labels, found = all_targets(run, targets)
    assert found["logits"].shape == (len(labels), 2, 3)
    for number, model in enumerate(run.teachers()):
        said = Teacher(str(model / "Format-Serving"), "teacher")(features)
        np.testing.assert_allclose(found["logits"][:, number], said, rtol=1e-4, atol=1e-5)
    card = read_soft_targets_card(str(targets))
    assert card.teachers == ["Teacher-1", "Teacher-2"]
    assert card.examples == len(labels)
    assert card.bytes["train"] == sum(path.stat().st_size for path in (targets / "Split-train").iterdir())


def test_float16_is_half_as_exact_and_smaller(run, targets, tmp_path):
    half = write_targets(run, tmp_path, dtype="float16")
    _, _, exact = all_targets(run, targets)
    _, _, rounded = all_targets(run, half)
    np.testing.assert_array_equal(rounded["logits"], exact["logits"].numpy().astype(np.float16).astype(np.float32))
    assert read_soft_targets_card(str(half)).bytes["train"] < read_soft_targets_card(str(targets)).bytes["train"]


@pytest.mark.soak
def test_worker_processes_write_the_same_targets(run, targets, tmp_path):
    spread = write_targets(run, tmp_path, beam_options=WORKER_PROCESSES)
    assert read_soft_targets_card(str(spread)).examples == read_soft_targets_card(str(targets)).examples
    _, _, ours = all_targets(run, spread)
    _, _, theirs = all_targets(run, targets)
    np.testing.assert_allclose(ours["logits"], theirs["logits"], rtol=1e-5, atol=1e-6)


def upper(batch):
    return [record.upper() for record in batch.numpy()]


def make_upper():
    return upper


@pytest.mark.parametrize("records_in_block", [4, 1000])
def test_blocks_keep_the_order_of_the_records(tmp_path, records_in_block):
    records = [f"record {number}".encode() for number in range(11)]
    with tf.io.TFRecordWriter(str(tmp_path / "x.gz"), "GZIP") as writer:
        for record in records:
            writer.write(record)
    with beam.Pipeline(argv=list(BEAM_OPTIONS)) as pipeline:
        write = WriteBlocks(make_upper, str(tmp_path / "out"), 3, records_in_block)
        _ = pipeline | beam.Create([str(tmp_path / "x.gz")]) | write
    files = target_files("x.gz", str(tmp_path / "out"))
    assert len(files) == -(-11 // records_in_block)
    assert list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()) == [r.upper() for r in records]


@pytest.fixture
def task(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)


def test_cached_and_online_targets_train_the_same_student(run, targets, task, tmp_path):
    teachers = [str(model / "Format-Serving") for model in run.teachers()]
    cached, card = train(training_config(run, True, soft_targets=str(targets)), run.fn_args(tmp_path))
    online, _ = train(training_config(run, True, soft_targets=None, teachers=teachers), run.fn_args(tmp_path))
    for ours, theirs in zip(cached.get_weights(), online.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert card["history"]["temperature"] == [3.0, 2.0, 1.0]
    assert card["history"]["alpha"] == pytest.approx([0.9, 0.7, 0.5])


def test_a_teacher_of_nan_is_named_with_the_number_of_examples(run, tmp_path):
    broken = run.export(tmp_path / "broken", network(weight=np.nan))
    count = read_count(run)
    message = f"Teacher-2: logits are NaN or infinite for {count} of {count} examples"
    with pytest.raises(UserError, match=message):
        write_targets(run, tmp_path / "targets", [run.teachers()[0], broken])


def read_count(run):
    return sum(1 for _ in tf.data.TFRecordDataset(files_of(run), "GZIP"))


def test_a_teacher_that_gives_probabilities_is_named(run, tmp_path, task):
    model = run.export(tmp_path / "soft", network(activation="softmax"))
    with pytest.raises(UserError, match="Teacher-1: found probabilities"):
        write_targets(run, tmp_path / "targets", [model])
    online = training_config(run, True, soft_targets=None, teachers=[str(model / "Format-Serving")] * 2)
    with pytest.raises(UserError, match="Teacher-1: found probabilities"):
        train(online, run.fn_args(tmp_path))


def test_teachers_of_different_classes_are_named(run, tmp_path):
    other = run.export(tmp_path / "other", network(units=4))
    with pytest.raises(UserError, match="differ: Teacher-1 3, Teacher-2 4"):
        write_targets(run, tmp_path / "targets", [run.teachers()[0], other])


def test_logits_that_float16_cannot_hold_are_refused(run, tmp_path):
    large = run.export(tmp_path / "large", network(weight=1e6))
    with pytest.raises(UserError, match=r"examples are too large for float16 \(above 65504\)"):
        write_targets(run, tmp_path / "targets", [large], dtype="float16")


@pytest.fixture
def damaged(run, targets, tmp_path):
    """A copy of the targets and of their examples that may be damaged, and the way to check them."""
    shutil.copytree(targets, tmp_path / "targets")
    shutil.copytree(run.examples / "Split-train", tmp_path / "examples")
    examples, (path,) = sorted((tmp_path / "examples").iterdir()), (tmp_path / "targets" / "Split-train").iterdir()

    def check():
        card = read_soft_targets_card(str(tmp_path / "targets"))
        check_match([str(file) for file in examples], str(tmp_path / "targets" / "Split-train"), card)

    check()
    return examples[0], path, check


def rewrite(path, change):
    records = change(list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()))
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)


def test_targets_of_fewer_examples_are_refused(damaged):
    _, path, check = damaged
    rewrite(path, lambda records: records[:-1])
    with pytest.raises(UserError, match=r"found \d+ targets; expected \d+, one per example; recreate them"):
        check()


def test_targets_in_another_order_are_refused(damaged):
    _, path, check = damaged
    rewrite(path, lambda records: [*records[:5], records[6], records[5], *records[7:]])
    with pytest.raises(UserError, match="in another order, from example 6 on"):
        check()


def test_targets_of_other_examples_are_refused(damaged):
    examples, _, check = damaged
    rewrite(examples, lambda records: [*records[:3], records[0], *records[4:]])
    with pytest.raises(UserError, match=r"1 of \d+ belong to other examples, the first at example 4"):
        check()


def test_truncated_targets_are_refused(damaged):
    _, path, check = damaged
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"soft targets of .*: corrupt: "):
        check()


def test_a_folder_without_card_is_no_soft_targets(tmp_path):
    (tmp_path / "soft_targets.json").write_text(json.dumps({"teachers": 3}))
    with pytest.raises(UserError, match="soft_targets.json is missing or corrupt"):
        read_soft_targets_card(str(tmp_path))
