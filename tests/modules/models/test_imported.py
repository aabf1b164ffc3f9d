import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts, network, save

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import first_batch
from stillhouse.modules.ingestion.files import example_files
from stillhouse.modules.models.card import read_card, write_card
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.imported import SavedTeacher, export_saved_teacher, fingerprint, logits_of, saved_width
from stillhouse.modules.models.teachers import Teacher

HEAD = HEADS["classification"]


@pytest.fixture(scope="module")
def run(trained):
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture(scope="module")
def features(run):
    files = example_files([str(run.examples / "Split-train" / "*")])
    return first_batch(files, run.transform.transformed_feature_spec(), "tree", HEAD, 100)[0]


def teacher(path, **changes):
    given = {"name": "Teacher-1", "path": path, "signature": "serving_default", "output": None, "outputs": "auto"}
    return SavedTeacher(**given | changes)


def imported(saved, run, features, folder, head=HEAD):
    export_saved_teacher(saved, run.transform, "tree", head, features, str(folder))
    return Teacher(str(folder), "Teacher-1", head)(features).numpy()


@pytest.mark.parametrize("outputs", ["auto", "logits"])
def test_logits_are_taken_as_they_are_whatever_the_input_is_called(run, features, tmp_path, outputs):
    model = network()
    saved = teacher(save(model, tmp_path / "in", name="keras_tensor"), outputs=outputs)
    found = imported(saved, run, features, tmp_path / "out")
    np.testing.assert_allclose(found, model(features["features"]), rtol=1e-5)
    card = read_card(str(tmp_path / "out"))
    assert (card["parameters"], card["inverted_probabilities"]) == (4 * 3 + 3, False)


@pytest.mark.parametrize("outputs", ["auto", "probabilities"])
def test_probabilities_are_detected_or_declared_and_inverted(run, features, tmp_path, outputs):
    model = network(activation="softmax")
    saved = teacher(save(model, tmp_path / "in"), outputs=outputs)
    found = imported(saved, run, features, tmp_path / "out")
    np.testing.assert_allclose(tf.nn.softmax(found), model(features["features"]), rtol=1e-4)
    assert (found < 0).any()


def test_one_output_between_0_and_1_has_to_be_declared(run, features, tmp_path):
    path = save(network(units=1, activation="sigmoid"), tmp_path / "in")
    with pytest.raises(UserError, match="either probabilities or logits; set outputs"):
        imported(teacher(path), run, features, tmp_path / "out")


def test_inverting_gives_the_probabilities_back():
    p = np.random.RandomState(0).dirichlet([1, 1, 1], 5).astype(np.float32)
    np.testing.assert_allclose(tf.nn.softmax(logits_of(tf.constant(p), HEAD)), p, rtol=1e-4)
    np.testing.assert_allclose(tf.sigmoid(logits_of(tf.constant(p), HEADS["multi_label"])), p, rtol=1e-4)
    assert np.isfinite(logits_of(tf.constant([[0.0, 1.0]]), HEAD)).all()
    assert np.isfinite(logits_of(tf.constant([[0.0, 1.0]]), HEADS["multi_label"])).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "/nowhere"}, "no SavedModel in this folder"),
        ({"signature": "logits"}, "signature: found 'logits'; expected one of: serving_default"),
        ({"output": "logits"}, "set output to the output with the logits: out"),
    ],
)
def test_what_is_not_in_the_saved_model_is_named(tmp_path, changes, message):
    path = save(network(), tmp_path / "in")
    with pytest.raises(UserError, match=message):
        saved_width(teacher(**{"path": path} | changes), HEAD)


def test_inputs_that_do_not_fit_the_features_are_told(run, features, tmp_path):
    with pytest.raises(UserError, match="inference on the transformed features failed"):
        imported(teacher(save(wide(), tmp_path / "in", width=7)), run, features, tmp_path / "out")


def wide():
    dense = tf.keras.layers.Dense(3)
    dense.build([None, 7])
    return dense


def test_another_label_vocabulary_is_refused(run, features, tmp_path):
    path = save(network(), tmp_path / "in")
    write_card(path, {"class_names": ["oak", "birch", "cedar"]})
    with pytest.raises(UserError, match=r"label vocabulary: found class 0 'oak'; expected '"):
        imported(teacher(path), run, features, tmp_path / "out")


def test_the_fingerprint_sees_every_file(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "x").write_text("1")
    before = fingerprint(str(tmp_path))
    (tmp_path / "variables" / "x").write_text("2")
    assert fingerprint(str(tmp_path)) != before
    assert fingerprint(str(tmp_path / "nowhere")) == ""
