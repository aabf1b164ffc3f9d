"""Starting from the version that was pushed last, or from a pre-trained network."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.models.weights import last_pushed, pretrained


def network(units=5):
    features = keras.Input([4], name="features")
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(units)(features))
    return keras.Model(features, keras.layers.Dense(3)(hidden))


class Exported(tf.Module):
    """As stillhouse.modules.models.export writes one: the network, and the vocabulary among the assets."""

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
        "Student: starting from scratch; the last pushed version has other weight shapes",
        "Student: starting from scratch; the vocabulary tree has changed since the last push",
        "Student: starting from scratch; nothing has been pushed yet",
    ]


def test_nothing_is_told_where_no_warm_start_is_asked_for(caplog):
    assert last_pushed(None, "Student", network, "") is None
    assert not told(caplog)


def deep(layers, classes, seed):
    keras.utils.set_random_seed(seed)
    hidden = features = keras.Input([4], name="features")
    for number in range(layers):
        hidden = keras.layers.Dense(4, name=f"layer_{number}", kernel_initializer="normal")(hidden)
    return keras.Model(features, keras.layers.Dense(classes, name=f"classes_{classes}")(hidden))


@pytest.fixture
def source(tmp_path):
    """A pre-trained network of four layers, and its folder."""
    module = tf.Module()
    module.network = deep(4, 2, seed=1)
    tf.saved_model.save(module, str(tmp_path / "pretrained"))
    return str(tmp_path / "pretrained"), module.network


def kernel(network, layer):
    return network.get_layer(layer).kernel.numpy()


def test_layers_start_at_those_of_their_names_or_at_the_ones_that_are_named(source):
    path, network = source
    found = pretrained(path, "Student", lambda: deep(2, 3, seed=2), {"layer_1": "layer_2"})
    np.testing.assert_array_equal(kernel(found, "layer_0"), kernel(network, "layer_0"))
    np.testing.assert_array_equal(kernel(found, "layer_1"), kernel(network, "layer_2"))
    np.testing.assert_array_equal(kernel(found, "classes_3"), kernel(deep(2, 3, seed=2), "classes_3"))


@pytest.mark.parametrize(
    ("build", "layers", "message"),
    [
        (
            lambda: deep(2, 3, 2),
            {"layer_7": "layer_2"},
            "found layer_7; expected layers of this network: classes_3, la",
        ),
        (
            lambda: deep(2, 3, 2),
            {"layer_1": "layer_9"},
            "found layer_9; expected layers of the pre-trained network: cl",
        ),
        (lambda: network(), {}, "no layer has the name of a pre-trained one; the pre-trained network has: "),
        (
            lambda: deep(2, 3, 2),
            {"layer_1": "classes_2"},
            r"layer_1/kernel:0: found shape \(4, 4\); expected \(4, 2\), as in the pre-tr",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused(source, build, layers, message):
    with pytest.raises(UserError, match=message):
        pretrained(source[0], "Student", build, layers)
