"""A text encoder: BERT's (Devlin et al. 2019), small enough to be trained from scratch.

Embeddings of sub-words, positions, segments and matches, then layers of attention and feed-forward, each with a
shortcut and normalised after it. Layers are named layer_0, layer_1, ..., so that weights can go from one encoder to
another by name.
"""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.text.reserved import PADDING

EPSILON = 1e-12  # of the normalisation, as in BERT
DEVIATION = 0.02  # of initial weights, as in BERT


def _dense(units: int, name: str, activation=None) -> keras.layers.Dense:
    initial = keras.initializers.TruncatedNormal(DEVIATION)
    return keras.layers.Dense(units, activation=activation, kernel_initializer=initial, name=name)


def gelu(values: tf.Tensor) -> tf.Tensor:
    """Returns x · Φ(x), by its approximation with tanh, which takes half the time (Hendrycks & Gimpel 2016)."""
    return tf.nn.gelu(values, approximate=True)


class Embeddings(keras.layers.Layer):
    """The sum of what a sub-word, its position, its segment and whether it stands in both texts mean, normalised."""

    def __init__(self, vocabulary: int, length: int, width: int, segments: int, dropout: float, **more):
        """Builds the tables; `segments` 0: there is no table of segments, as in DistilBERT."""
        super().__init__(**more)

        def table(size: int, name: str) -> keras.layers.Embedding:
            # An initialiser of its own for each: one would give tables of one shape the same values.
            initial = keras.initializers.TruncatedNormal(DEVIATION)
            return keras.layers.Embedding(size, width, embeddings_initializer=initial, name=name)

        self.tokens = table(vocabulary, "tokens")
        self._positions = table(length, "positions")
        self._matches = table(2, "matches")
        self._segments = table(segments, "segments") if segments else None
        self._normalise = keras.layers.LayerNormalization(epsilon=EPSILON, name="normalise")
        self._dropout = keras.layers.Dropout(dropout)

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns float32 [batch, length, width].

        Args:
          inputs: ids, matches (0 or 1), and segments if there is a table, int64 [batch, length] each.
          training: whether to drop.
        """
        ids, matches, *segments = inputs
        found = self.tokens(ids) + self._positions(tf.range(ids.shape[1])) + self._matches(matches)
        if self._segments:
            found += self._segments(segments[0])
        return self._dropout(self._normalise(found), training=training)


class EncoderLayer(keras.layers.Layer):
    """Attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float, **more):
        """Builds a layer whose feed-forward part is four times as wide."""
        super().__init__(**more)
        initial = keras.initializers.TruncatedNormal(DEVIATION)
        self._attention = keras.layers.MultiHeadAttention(
            heads, width // heads, dropout=dropout, kernel_initializer=initial, name="attention"
        )
        self._widen = _dense(4 * width, "widen", gelu)
        self._narrow = _dense(width, "narrow")
        self._normalise = [keras.layers.LayerNormalization(epsilon=EPSILON, name=f"normalise_{n}") for n in range(2)]
        self._dropouts = [keras.layers.Dropout(dropout) for _ in range(2)]

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns float32 [batch, length, width] of as much and of present, bool [batch, length]."""
        hidden, present = inputs
        attended = self._attention(hidden, hidden, attention_mask=present[:, None, :], training=training)
        hidden = self._normalise[0](hidden + self._dropouts[0](attended, training=training))
        fed = self._narrow(self._widen(hidden))
        return self._normalise[1](hidden + self._dropouts[1](fed, training=training))


class WhereWords(keras.layers.Layer):
    """Hidden states where there are sub-words, zeros where there is padding."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns float32 [batch, length, width] of as much and of present, bool [batch, length]."""
        hidden, present = inputs
        return hidden * tf.cast(present, hidden.dtype)[..., None]


class IsPresent(keras.layers.Layer):
    """Where ids are no padding."""

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns bool [batch, length] of ids int64 [batch, length]."""
        return ids != PADDING


class VocabularyLogits(keras.layers.Layer):
    """What may stand at masked positions: logits by the table of the embeddings itself (BERT's tied weights)."""

    def __init__(self, embeddings: Embeddings, width: int, **more):
        """Takes the layer whose table it shares."""
        super().__init__(**more)
        self._tokens = embeddings.tokens
        self._transform = _dense(width, "transform", gelu)
        self._normalise = keras.layers.LayerNormalization(epsilon=EPSILON, name="normalise")

    def build(self, shapes):
        """Makes the bias of each sub-word."""
        self._bias = self.add_weight("bias", [self._tokens.input_dim], initializer="zeros")
        super().build(shapes)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns logits, float32 [batch, positions, vocabulary].

        Args:
          inputs: hidden states float32 [batch, length, width], masked positions int64 [batch, positions].
        """
        hidden, positions = inputs
        at_positions = tf.gather(hidden, positions, axis=1, batch_dims=1)
        found = self._normalise(self._transform(at_positions))
        table = tf.cast(self._tokens.embeddings, found.dtype)
        return tf.cast(tf.einsum("bpw,vw->bpv", found, table), tf.float32) + tf.cast(self._bias, tf.float32)


def encoder(
    ids: tf.Tensor,
    matches: tf.Tensor,
    segments: tf.Tensor | None,
    vocabulary: int,
    layers: int,
    width: int,
    heads: int,
    dropout: float,
) -> tuple[Embeddings, tf.Tensor]:
    """Returns the layer of the embeddings and hidden states, float32 [batch, length, width], of symbolic inputs.

    Args:
      ids: int64 [batch, length].
      matches: likewise, whether the sub-word stands in both texts, 0 or 1.
      segments: likewise, 0 or 1; None: an encoder without them.
      vocabulary: number of sub-words.
      layers: number of layers.
      width: of the hidden states, a multiple of `heads`.
      heads: of the attention.
      dropout: share that is dropped.
    """
    embeddings = Embeddings(vocabulary, ids.shape[1], width, 0 if segments is None else 2, dropout, name="embeddings")
    hidden = embeddings([ids, matches, *([] if segments is None else [segments])])
    present = IsPresent(name="present")(ids)
    for number in range(layers):
        hidden = EncoderLayer(width, heads, dropout, name=f"layer_{number}")([hidden, present])
    return embeddings, WhereWords(name="states")([hidden, present])
