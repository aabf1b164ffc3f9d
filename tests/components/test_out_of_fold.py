"""Targets from teachers that have not seen the example, written by the executor as in a pipeline."""

import functools

import blobs
import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, artifact, network, training_config
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import RunOptions
from tfx.types import standard_artifacts

from stillhouse.components.soft_targets.executor import Executor, SoftTargetsParameters
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser, labelled_batches
from stillhouse.modules.ingestion.files import ExampleFiles, example_files
from stillhouse.modules.ingestion.folds import fold_of
from stillhouse.modules.ingestion.soft_targets import check_match, read_soft_targets_card
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import load_settings
from stillhouse.modules.training.train import train
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS
from stillhouse.pipelines.local.paths import local_paths

FOLDS, TEACHERS = 3, 2
WEIGHTS = [100.0, 200.0]  # of the full teachers; the network multiplies the sum of its inputs by its weight


def weight_of_fold(teacher, fold):
    return 10.0 * teacher + fold + 1


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture(scope="module")
def models(run, tmp_path_factory):
    """Networks that tell by their logits which they are."""
    folder = tmp_path_factory.mktemp("models")
    export = functools.cache(lambda weight: run.export(folder / f"{weight:g}", network(weight=weight)))
    full = [export(weight) for weight in WEIGHTS]
    return full, [export(weight_of_fold(teacher, fold)) for teacher in range(TEACHERS) for fold in range(FOLDS)]


def write(run, folder, models, **parameters):
    """Writes soft targets; the transfer split has the train split's examples too."""
    full, of_folds = models
    inputs = run.inputs(full)
    for number, model in enumerate(of_folds, start=1):
        inputs[f"fold_{number}"] = [artifact(standard_artifacts.Model, model)]
    (folder / "examples").mkdir(parents=True)
    (folder / "examples" / "Split-transfer").symlink_to(run.examples / "Split-train")
    inputs["transfer_examples"] = [artifact(standard_artifacts.Examples, folder / "examples", ["transfer"])]
    values = {"label": "tree", "head": "classification", "dtype": "float32", "batch_size": 64} | parameters
    context = Executor.Context(beam_pipeline_args=list(BEAM_OPTIONS))
    targets = artifact(standard_artifacts.Examples, folder / "targets")
    Executor(context).Do(inputs, {"soft_targets": [targets]}, SoftTargetsParameters(**values).properties())
    return folder / "targets"


def files_of(run):
    return example_files([str(run.examples / "Split-train" / "*")])


def read(run, folder, split, files=None):
    card = read_soft_targets_card(str(folder))
    files = ExampleFiles(files or files_of(run), str(folder / f"Split-{split}"))
    check_match(files.examples, files.soft_targets, card)
    spec = run.transform.transformed_feature_spec()
    return next(iter(labelled_batches(files, ExampleParser(spec, "tree", HEADS["classification"], card), 10_000)))


def folds_of(files, folds=FOLDS):
    records = tf.data.TFRecordDataset(files, "GZIP")
    return np.array([int(fold_of(record, folds)) for record in records])


def test_an_example_is_asked_of_its_folds_teachers_and_unlabelled_ones_of_the_full_ones(run, models, tmp_path):
    folder = write(run, tmp_path, models, folds=FOLDS)
    folds = folds_of(files_of(run))
    assert set(folds) == set(range(FOLDS))
    for split in ("train", "transfer"):
        features, _, targets = read(run, folder, split)
        sums = features["features"].numpy().sum(axis=1)
        for teacher in range(TEACHERS):
            own = [weight_of_fold(teacher, fold) for fold in folds] if split == "train" else WEIGHTS[teacher]
            expected = np.repeat((sums * own)[:, None], 3, axis=1)
            np.testing.assert_allclose(targets["logits"][:, teacher], expected, rtol=1e-4, atol=1e-4)
    card = read_soft_targets_card(str(folder))
    assert (card.teachers, card.folds) == (["Teacher-1", "Teacher-2"], FOLDS)


@pytest.mark.parametrize(("dtype", "top"), [("int8", None), ("float32", 1), ("int8", 2)])
def test_compact_targets_are_smaller_and_their_loss_is_on_the_card(run, tmp_path, dtype, top):
    exact = write(run, tmp_path / "exact", (run.teachers(), []))
    compact = write(run, tmp_path / "compact", (run.teachers(), []), dtype=dtype, top=top)
    (_, _, ours), (_, _, theirs) = read(run, exact, "train"), read(run, compact, "train")
    p, q = (tf.nn.softmax(tf.cast(t["logits"], tf.float64)).numpy().mean(axis=1) for t in (ours, theirs))
    cards = [read_soft_targets_card(str(folder)) for folder in (exact, compact)]
    assert cards[0].compaction is None
    assert cards[1].compaction["agreement"] == pytest.approx((p.argmax(axis=1) == q.argmax(axis=1)).mean())
    assert cards[1].compaction["kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4, abs=1e-8)
    assert cards[1].bytes["train"] < cards[0].bytes["train"]
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=0.2 if top is None else 20)


def test_more_logits_than_classes_are_refused(run, models, tmp_path):
    with pytest.raises(UserError, match=r"student.distillation.targets_top: found 3; expected less than 3 \(classes\)"):
        write(run, tmp_path, (models[0], []), top=3)


@pytest.fixture
def task(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_fold_teacher_trains_on_what_its_fold_leaves(run, task, tmp_path, cache):
    config = training_config(run, False, ingestion={"cache": cache}, held_out={"index": 1, "of": FOLDS})
    _, card = train(config, run.fn_args(tmp_path))
    assert card["train_examples"] == (folds_of(files_of(run)) != 1).sum()


def test_too_many_folds_are_refused_before_a_fold_teacher_trains(run, task, tmp_path):
    config = training_config(run, False, epochs=10**6, held_out={"index": 0, "of": 300})
    with pytest.raises(UserError, match=r"folds: found 300; expected at most \d+ \(labelled examples of class \d\)"):
        train(config, run.fn_args(tmp_path))


@pytest.mark.soak
def test_teachers_that_memorise_random_labels_do_not_know_those_of_their_fold(tmp_path, monkeypatch):
    """The pipeline as far as the student, which learns from targets that are compact too."""
    teacher = {"epochs": 300, "hyperparameters": {"units": 512}, "optimizer": {"learning_rate": 0.01}}
    distillation = {"folds": 4, "targets_dtype": "int8", "targets_top": 2}
    path = blobs.write_project(
        tmp_path,
        data={"path": "data", "format": "csv", "label": "tree", "splits": {"train": 3, "eval": 1}, "transfer": "more"},
        teachers=[teacher],
        student={"epochs": 2, "distillation": distillation},
    )
    random = np.random.default_rng(0)
    rows = [[*row[:4], blobs.CLASSES[random.integers(3)]] for row in blobs.rows(200)]
    blobs.write_csv(tmp_path / "data" / "blobs.csv", rows)
    (tmp_path / "more").mkdir()
    lines = [",".join(blobs.COLUMNS), *(",".join(map(str, row[:4])) for row in rows)]
    (tmp_path / "more" / "x.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    settings = load_settings(path)
    root = tmp_path / "runs" / "blobs"
    root.mkdir(parents=True)
    LocalDagRunner().run(create_pipeline(settings, local_paths(settings, root)), RunOptions(to_nodes=["Student"]))

    run = Artifacts(root)
    targets = run.uri("SoftTargets", "soft_targets")
    features, labels, answers = read(run, targets, "train")
    knows = (answers["logits"].numpy()[:, 0].argmax(axis=1) == labels.numpy()).mean()
    label_of = {tuple(x): label for x, label in zip(features["features"].numpy().tolist(), labels.numpy(), strict=True)}
    unlabelled = run.uri("TransferExamples", "transformed_examples")
    features, _, answers = read(run, targets, "transfer", example_files([str(unlabelled / "Split-transfer" / "*")]))
    seen = [label_of.get(tuple(x)) for x in features["features"].numpy().tolist()]
    memorised = [
        a == b for a, b in zip(answers["logits"].numpy()[:, 0].argmax(axis=1), seen, strict=True) if b is not None
    ]
    assert len(memorised) == len(labels)
    assert np.mean(memorised) > 0.9
    assert 0.2 < knows < 0.5
