"""Pseudo-labels by the executors, as in a pipeline: the soft targets of the finished run's teachers, filtered."""

import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, artifact
from tfx.types import standard_artifacts

from stillhouse.components.pseudo_labels.executor import Executor, PseudoLabelsParameters
from stillhouse.components.soft_targets.executor import Executor as SoftTargets
from stillhouse.components.soft_targets.executor import SoftTargetsParameters
from stillhouse.modules.ingestion.examples import ExampleParser, labelled_batches
from stillhouse.modules.ingestion.files import ExampleFiles, example_files
from stillhouse.modules.ingestion.soft_targets import check_match, read_soft_targets_card
from stillhouse.modules.models.heads import HEADS
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS

HEAD = HEADS["classification"]
WEIGHTS = [1.0, 3.0]


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture(scope="module")
def said(run, tmp_path_factory):
    """The inputs of PseudoLabels: the train split's examples stand for the unlabelled ones too, in two files."""
    folder = tmp_path_factory.mktemp("said")
    records = [r for file in files(run.examples / "Split-train") for r in tf.data.TFRecordDataset(file, "GZIP")]
    unlabelled = folder / "examples" / "Split-transfer"
    unlabelled.mkdir(parents=True)
    for number, part in enumerate((records[:50], records[50:])):
        with tf.io.TFRecordWriter(str(unlabelled / f"part-{number}.gz"), "GZIP") as writer:
            for record in part:
                example = tf.train.Example.FromString(record.numpy())
                del example.features.feature["tree"]
                writer.write(example.SerializeToString())
    inputs = run.inputs(run.teachers())
    inputs["transfer_examples"] = [artifact(standard_artifacts.Examples, folder / "examples", ["transfer"])]
    targets = artifact(standard_artifacts.Examples, folder / "targets")
    parameters = SoftTargetsParameters(label="tree", head="classification", dtype="float32", batch_size=64)
    context = SoftTargets.Context(beam_pipeline_args=list(BEAM_OPTIONS))
    SoftTargets(context).Do(inputs, {"soft_targets": [targets]}, parameters.properties())
    return inputs | {"soft_targets": [targets]}, len(records)


def files(folder):
    return example_files([str(folder / "*")])


def labelled(said, folder, **rule):
    """Runs the executor and returns {split: (features, labels, target logits)} of what it wrote."""
    inputs, _ = said
    chosen, targets = (artifact(standard_artifacts.Examples, folder / name) for name in ("chosen", "targets"))
    ensemble = {"weights": WEIGHTS, "combination": "arithmetic"}
    rule = {"kind": "soft", "min_confidence": 0.0, "balance": False} | rule
    Executor().Do(
        inputs,
        {"pseudo_labelled": [chosen], "targets": [targets]},
        PseudoLabelsParameters(label="tree", rule=rule, ensemble=ensemble).properties(),
    )
    card = read_soft_targets_card(targets.uri)
    run = inputs["transform_graph"][0].uri
    import tensorflow_transform as tft

    parser = ExampleParser(tft.TFTransformOutput(run).transformed_feature_spec(), "tree", HEAD, card)
    found = {}
    for split, examples in (("train", inputs["examples"][0].uri), ("transfer", chosen.uri)):
        own = example_files([f"{examples}/Split-{split}/*"])
        folder_of_targets = f"{targets.uri}/Split-{split}"
        check_match(own, folder_of_targets, card)
        features, labels, of = next(iter(labelled_batches(ExampleFiles(own, folder_of_targets), parser, 10_000)))
        found[split] = features["features"].numpy(), labels.numpy(), of["logits"].numpy()
    assert card.examples == sum(len(of[1]) for of in found.values())
    return found


def test_counts_of_both_splits_are_added_up(said):
    inputs, count = said
    assert read_soft_targets_card(inputs["soft_targets"][0].uri).examples == 2 * count


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_targets_of_labelled_examples_are_their_labels_and_of_the_others_what_the_teachers_say(run, said, tmp_path):
    found = labelled(said, tmp_path)
    _, labels, logits = found["train"]
    assert logits.shape == (len(labels), 1, 3)
    np.testing.assert_allclose(softmax(logits[:, 0]), np.eye(3)[labels], atol=1e-6)
    features, missing, logits = found["transfer"]
    assert (missing == -1).all()
    models = [tf.saved_model.load(str(path / "Format-Serving")).signatures["logits"] for path in run.teachers()]
    members = [softmax(model(features=tf.constant(features))["logits"].numpy()) for model in models]
    np.testing.assert_allclose(softmax(logits[:, 0]), (members[0] + 3 * members[1]) / 4, atol=1e-5)


def test_hard_labels_of_sure_and_balanced_examples(said, tmp_path):
    everything = labelled(said, tmp_path / "all")["transfer"]
    confidence = softmax(everything[2][:, 0]).max(axis=-1)
    least = float(np.quantile(confidence, 0.3))
    features, _, logits = labelled(said, tmp_path / "few", kind="hard", min_confidence=least, balance=True)["transfer"]
    likeliest = logits[:, 0].argmax(axis=-1)
    np.testing.assert_allclose(softmax(logits[:, 0]), np.eye(3)[likeliest], atol=1e-6)
    counts = np.bincount(likeliest, minlength=3)
    assert counts.min() == counts.max()
    sure = {row.tobytes() for row, of in zip(everything[0], confidence, strict=True) if of >= least}
    assert {row.tobytes() for row in features} <= sure
