"""Starting from the version that was pushed last."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from modules.weights import last_pushed


def network(units=5):
    features = keras.Input([4], name="features")
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(units)(features))
    return keras.Model(features, keras.layers.Dense(3)(hidden))


class Exported(tf.Module):
    """As modules.export writes one: the network, and the vocabulary among the assets."""

    def __init__(self, model, vocabulary):
        super().__init__()
        self.network = model
        self.vocabulary = tf.saved_model.Asset(str(vocabulary))


@pytest.fixture
def pushed(tmp_path):
    """A pushed model, its network, and the folder of a Transform with the same vocabulary."""
    assets = tmp_path / "transform" / "transform_fn" / "assets"
    assets.mkdir(parents=True)
    (assets / "tree").write_text("ash\nbirch\ncedar\n")
    model = network()
    model.set_weights([np.random.RandomState(0).normal(size=w.shape) for w in model.weights])
    tf.saved_model.save(Exported(model, assets / "tree"), str(tmp_path / "model"))
    return tmp_path, model


def start(folder, build=network):
    return last_pushed(str(folder / "model"), "Student", build, str(folder / "transform"))


def test_the_weights_are_those_of_the_pushed_model(pushed):
    folder, model = pushed
    found = start(folder)
    assert len(model.weights) == 8  # those of the normalisation, which are not trained, too
    for here, there in zip(found.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)


def told(caplog):
    return [record.note for record in caplog.records if hasattr(record, "note")]


def test_a_training_that_does_not_fit_starts_from_scratch_and_says_why(pushed, caplog):
    folder, _ = pushed
    caplog.set_level(logging.INFO, "stillhouse")
    logging.getLogger("stillhouse").propagate = True
    assert start(folder, lambda: network(units=6)) is None
    (folder / "transform" / "transform_fn" / "assets" / "tree").write_text("birch\nash\ncedar\n")
    assert start(folder) is None
    assert last_pushed(str(folder / "nothing"), "Student", network, str(folder / "transform")) is None
    assert told(caplog) == [
        "Student: starts from scratch; the last pushed version has weights of other shapes",
        "Student: starts from scratch; the vocabulary tree has changed since the last push",
        "Student: starts from scratch; nothing has been pushed yet",
    ]


def test_nothing_is_told_where_no_warm_start_is_asked_for(caplog):
    assert last_pushed(None, "Student", network, "") is None
    assert not told(caplog)
