"""Views of the finished run's examples and the teachers' targets for them, written by the executor as in a pipeline."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, artifact, training_config
from tfx.types import standard_artifacts

from stillhouse.components.dark_knowledge.executor import DARK_KNOWLEDGE, DarkKnowledgeParameters
from stillhouse.components.dark_knowledge.executor import Executor as DarkKnowledge
from stillhouse.components.soft_targets.executor import Executor, SoftTargetsParameters, views_summary
from stillhouse.components.soft_targets.views import ViewsOfExamples
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser, labelled_batches
from stillhouse.modules.ingestion.files import ExampleFiles, example_files
from stillhouse.modules.ingestion.soft_targets import check_match, read_soft_targets_card, view_files
from stillhouse.modules.ingestion.views import PARTNER, SHARE
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.teachers import Teacher
from stillhouse.modules.settings import WeightedEnsemble
from stillhouse.modules.training.train import train
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS

HEAD = HEADS["classification"]


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture(autouse=True)
def task(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)
    monkeypatch.delitem(sys.modules, "blobs_task", raising=False)


def views(**changes):
    return ViewsOfExamples(**({"count": 3, "seed": 4, "task": "blobs_task"} | changes))


def write(run, folder, changes, transfer=None):
    targets = artifact(standard_artifacts.Examples, folder)
    parameters = SoftTargetsParameters(
        label="tree", head="classification", dtype="float32", batch_size=64, views=changes
    )
    inputs = run.inputs(run.teachers())
    if transfer:
        inputs["transfer_examples"] = [artifact(standard_artifacts.Examples, transfer, ["transfer"])]
    context = Executor.Context(beam_pipeline_args=list(BEAM_OPTIONS))
    Executor(context).Do(inputs, {"soft_targets": [targets]}, parameters.properties())
    return str(folder)


@pytest.fixture(scope="module")
def mixed(run, tmp_path_factory):
    return write(run, tmp_path_factory.mktemp("mixed"), views(mixup=1.0))


def parsed(run, files, folder=None):
    """Returns the examples of files: features [n, 4], labels [n], targets."""
    card = read_soft_targets_card(folder) if folder else None
    parser = ExampleParser(run.transform.transformed_feature_spec(), "tree", HEAD, card)
    source = ExampleFiles(files, f"{folder}/Split-train" if folder else None)
    features, labels, targets = next(iter(labelled_batches(source, parser, 10_000)))
    return features["features"].numpy(), labels.numpy(), {name: each.numpy() for name, each in targets.items()}


def originals(run):
    return example_files([str(run.examples / "Split-train" / "*")])


def test_the_targets_are_what_the_teachers_say_about_each_view(run, mixed):
    files, card = view_files(mixed, "train"), read_soft_targets_card(mixed)
    _, labels, _ = parsed(run, originals(run))
    assert (card.views, card.mixed, card.examples) == (3, True, 3 * len(labels))
    check_match(files, f"{mixed}/Split-train", card)
    seen, _, targets = parsed(run, files, mixed)
    assert len(seen) == 3 * len(labels)
    for number, model in enumerate(run.teachers()):
        said = Teacher(str(model / "Format-Serving"), "teacher")({"features": tf.constant(seen)})
        np.testing.assert_allclose(targets["logits"][:, number], said, rtol=1e-4, atol=1e-5)
    first, second, _ = (parsed(run, view_files(mixed, "train", view), mixed)[0] for view in range(3))
    assert (first != second).all(axis=1).mean() > 0.9


def test_a_mixed_view_has_the_label_of_its_partner_and_its_own_share(run, mixed):
    x, labels, _ = parsed(run, originals(run))
    seen, same_labels, targets = parsed(run, view_files(mixed, "train", 1), mixed)
    np.testing.assert_array_equal(same_labels, labels)
    share = targets[SHARE][:, None]
    clear = np.flatnonzero(share < 0.9)
    assert len(clear) > len(x) / 2
    partner = (seen - share * x)[clear] / (1 - share[clear])
    distances = np.abs(partner[:, None] - x[None]).max(axis=-1)
    assert distances.min(axis=1).max() < 1e-4
    np.testing.assert_array_equal(labels[distances.argmin(axis=1)], targets[PARTNER][clear])


def test_the_same_seed_writes_the_same_views(run, mixed, tmp_path):
    again = write(run, tmp_path / "again", views(mixup=1.0))
    other = write(run, tmp_path / "other", views(mixup=1.0, seed=5))
    first, same, different = (parsed(run, view_files(each, "train"), each) for each in (mixed, again, other))
    np.testing.assert_array_equal(same[0], first[0])
    np.testing.assert_array_equal(same[2][PARTNER], first[2][PARTNER])
    np.testing.assert_array_equal(same[2][SHARE], first[2][SHARE])
    assert (different[2][SHARE] != first[2][SHARE]).mean() > 0.99


def test_cached_views_train_the_student_that_online_teachers_train_on_the_same_inputs(run, tmp_path):
    folder = write(run, tmp_path / "targets", views(count=1, noise=0.5, swap={"features": 0.2}))
    own = {"noise": 0.5, "swap": {"features": 0.2}}  # no second change of what the files hold
    cached, _ = train(training_config(run, True, soft_targets=folder, **own), run.fn_args(tmp_path))
    teachers = [str(model / "Format-Serving") for model in run.teachers()]
    arguments = run.fn_args(tmp_path)
    arguments.train_files = view_files(folder, "train")
    online, _ = train(training_config(run, True, soft_targets=None, teachers=teachers), arguments)
    for ours, theirs in zip(cached.get_weights(), online.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_an_epoch_over_views_has_the_updates_of_one_over_the_examples(run, mixed, tmp_path, cache):
    count = len(parsed(run, originals(run))[1])
    config = training_config(run, True, soft_targets=mixed, mixup=1.0, ingestion={"cache": cache})
    _, card = train(config, run.fn_args(tmp_path))
    assert card["train_examples"] == count
    assert card["updates"] == 3 * -(-count // 32)
    assert all(np.isfinite(card["history"]["loss"]))
    assert card["history"]["accuracy"][-1] > card["history"]["accuracy"][0]


@pytest.fixture
def transfer(run, tmp_path):
    """A folder of 100 examples without labels."""
    records = []
    for record in tf.data.TFRecordDataset(originals(run), "GZIP").take(100).as_numpy_iterator():
        example = tf.train.Example.FromString(record)
        del example.features.feature["tree"]
        records.append(example.SerializeToString())
    path = tmp_path / "transfer" / "Split-transfer" / "transformed-00000-of-00001.gz"
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)
    return tmp_path / "transfer"


def test_unlabelled_examples_have_views_without_labels_that_train(run, transfer, tmp_path):
    folder = write(run, tmp_path / "targets", views(count=2, mixup=0.5), transfer)
    count = len(parsed(run, originals(run))[1])
    card = read_soft_targets_card(folder)
    assert card.examples == 2 * (count + 100)
    files = view_files(folder, "transfer")
    check_match(files, f"{folder}/Split-transfer", card)
    example = tf.train.Example.FromString(next(iter(tf.data.TFRecordDataset(files, "GZIP"))).numpy())
    assert example.features.feature["tree"].int64_list.value == [-1]
    assert example.features.feature[PARTNER].int64_list.value == [-1]
    patterns = [str(transfer / "Split-transfer" / "*")]
    config = training_config(run, True, soft_targets=folder, transfer_files=patterns, mixup=0.5)
    _, card = train(config, run.fn_args(tmp_path))
    assert (card["train_examples"], card["transfer_examples"]) == (count + 100, 100)
    assert card["updates"] == 3 * -(-(count + 100) // 32)


def test_dark_knowledge_looks_into_the_first_view(run, mixed, tmp_path):
    inputs = run.inputs([]) | {"soft_targets": [artifact(standard_artifacts.Examples, mixed, ["train"])]}
    parameters = DarkKnowledgeParameters(
        label="tree", temperatures=[1.0], ensemble=WeightedEnsemble(weights=[1.0, 2.0])
    )
    written = artifact(standard_artifacts.Examples, tmp_path / "dark")
    DarkKnowledge().Do(inputs, {"dark_knowledge": [written]}, parameters.properties())
    found = json.loads((tmp_path / "dark" / DARK_KNOWLEDGE).read_text())
    _, labels, _ = parsed(run, originals(run))
    assert found["examples_per_class"] == np.bincount(labels).tolist()


def set_augment(monkeypatch, augment):
    import blobs_task

    monkeypatch.setattr(blobs_task, "augment", augment, raising=False)


def test_the_tasks_augment_makes_views(run, tmp_path, monkeypatch):
    def augment(features, seed):
        x = features["features"]
        if tf.reduce_sum(x) != 0.0:  # control flow on a tensor
            x = x + 10.0 * tf.random.stateless_uniform([], seed)
        return {"features": x}

    set_augment(monkeypatch, augment)
    folder = write(run, tmp_path, views(augment=True))
    x, _, _ = parsed(run, originals(run))
    shifts = [parsed(run, view_files(folder, "train", view), folder)[0] - x for view in range(3)]
    for shift in shifts:
        np.testing.assert_allclose(shift, shift[0, 0], atol=1e-5)
    assert len({round(float(shift[0, 0]), 3) for shift in shifts}) == 3


def narrow(features, seed):
    return {"features": features["features"][:, :2]}


def nothing(features, seed):
    return {}


def wrong(features, seed):
    raise KeyError("image")


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (narrow, r"blobs_task.augment: feature 'features': found float32 \(None, 2\); expected float32 \[None, 4\]"),
        (nothing, "blobs_task.augment: feature 'features': found none; expected float32"),
        (wrong, "blobs_task.augment raised "),
    ],
)
def test_an_augment_that_breaks_the_features_is_told_before_any_view_is_written(
    run, tmp_path, monkeypatch, augment, message
):
    set_augment(monkeypatch, augment)
    with pytest.raises(UserError, match=message):
        write(run, tmp_path / "targets", views(augment=True))
    assert not (tmp_path / "targets").exists()


def test_a_change_that_does_not_fit_is_refused_in_training_before_it_begins(run, mixed, tmp_path):
    with pytest.raises(UserError, match="Student: noise: found the feature 'size'; expected one of: features"):
        train(training_config(run, False, noise={"size": 0.1}), run.fn_args(tmp_path))
    with pytest.raises(UserError, match="Student: mixup: not valid with soft targets of unmixed examples"):
        train(training_config(run, True, mixup=0.1), run.fn_args(tmp_path))
    _, card = train(training_config(run, False, mixup=0.4, noise=0.1), run.fn_args(tmp_path))
    assert all(np.isfinite(card["history"]["loss"]))


def test_a_single_view_is_said_to_be_the_same_in_every_epoch():
    assert views_summary(1, 2000).startswith("cached 2,000 bytes of views: 1 of each example, the same in every epoch")
    assert views_summary(2, 2000) == "cached 2,000 bytes of views: 2 of each example"
