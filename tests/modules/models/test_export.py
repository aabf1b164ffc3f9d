"""What an exported network keeps of Keras: nothing but what its signatures need."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.python.saved_model import loader_impl

from stillhouse.modules.models.export import export_pretrained


class Codes(keras.layers.Layer):
    """A user's layer with a table and a variable of its own."""

    def __init__(self):
        super().__init__()
        numbers = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [5, 6, 7], tf.int32, tf.int32)
        self.table = tf.lookup.StaticHashTable(numbers, -1)
        self.scale = self.add_weight(name="scale", shape=[], initializer="ones")
        self.offset = tf.Variable(0.25, trainable=False)

    def call(self, ids):
        return tf.cast(self.table.lookup(tf.cast(ids, tf.int32)), tf.float32) * self.scale + self.offset


@pytest.fixture
def network():
    text = keras.Input([1], dtype=tf.string, name="text")
    hidden = Codes()(keras.layers.StringLookup(vocabulary=["a", "b"])(text))
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(hidden))
    return keras.Model(text, keras.layers.Dense(3)(hidden))


def test_tables_and_variables_of_layers_are_kept_and_keras_is_not(network, tmp_path):
    export_pretrained(network, str(tmp_path / "model"), {"name": "codes"})
    words = tf.constant([["a"], ["b"], ["elsewhere"]])
    expected = network(words).numpy()
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.signatures["logits"](text=words)["logits"], expected)
    assert [each.name for each in loaded.network.variables] == [each.name for each in network.variables]
    assert len(loaded.network.trainable_variables) == len(network.trainable_variables)
    functions = loader_impl.parse_saved_model(str(tmp_path / "model"))
    names = [each.signature.name for each in functions.meta_graphs[0].graph_def.library.function]
    assert not [name for name in names if "wrapped_model" in name or "layer_call" in name]
