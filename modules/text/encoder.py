"""A text encoder: BERT's (Devlin et al. 2019), small enough to be trained from scratch.

Embeddings of tokens, positions, segments and matches, then layers of attention and feed-forward, each with a residual
connection followed by normalisation. Layers are named layer_0, layer_1, ..., so that one encoder's weights can
initialise another's by name.
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
    """The normalised sum of the embeddings of a token, its position, its match with the other text and its segment."""

    def __init__(
        self, vocabulary: int, length: int, width: int, segments: int, dropout: float, matches: bool = True, **more
    ):
        """Builds the tables; `segments` 0: no table of segments, as in DistilBERT; `matches` False: none of matches."""
        super().__init__(**more)

        def table(size: int, name: str) -> keras.layers.Embedding:
            # One initialiser per table: a shared one would give tables of the same shape the same values.
            initial = keras.initializers.TruncatedNormal(DEVIATION)
            return keras.layers.Embedding(size, width, embeddings_initializer=initial, name=name)

        self.tokens = table(vocabulary, "tokens")
        self._positions = table(length, "positions")
        self._others = [table(2, "matches")] if matches else []
        self._others += [table(segments, "segments")] if segments else []
        self._normalise = keras.layers.LayerNormalization(epsilon=EPSILON, name="normalise")
        self._dropout = keras.layers.Dropout(dropout)

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns float32 [batch, length, width].

        Args:
          inputs: ids, and of matches (0 or 1) and segments those that have a table, int64 [batch, length] each.
          training: whether to apply dropout.
        """
        ids, *others = inputs
        embedded = self.tokens(ids) + self._positions(tf.range(ids.shape[1]))
        for table, values in zip(self._others, others, strict=True):
            embedded += table(values)
        return self._dropout(self._normalise(embedded), training=training)


class EncoderLayer(keras.layers.Layer):
    """Attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float, activation=gelu, **more):
        """Builds a layer with a feed-forward part four times as wide, with this activation."""
        super().__init__(**more)
        initial = keras.initializers.TruncatedNormal(DEVIATION)
        self._attention = keras.layers.MultiHeadAttention(
            heads, width // heads, dropout=dropout, kernel_initializer=initial, name="attention"
        )
        self._widen = _dense(4 * width, "widen", activation)
        self._narrow = _dense(width, "narrow")
        self._normalise = [keras.layers.LayerNormalization(epsilon=EPSILON, name=f"normalise_{n}") for n in range(2)]
        self._dropouts = [keras.layers.Dropout(dropout) for _ in range(2)]

    def call(self, inputs: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns float32 [batch, length, width] of hidden states of this shape and present, bool [batch, length]."""
        hidden, present = inputs
        attended = self._attention(hidden, hidden, attention_mask=present[:, None, :], training=training)
        hidden = self._normalise[0](hidden + self._dropouts[0](attended, training=training))
        fed = self._narrow(self._widen(hidden))
        return self._normalise[1](hidden + self._dropouts[1](fed, training=training))


class WhereWords(keras.layers.Layer):
    """Hidden states of tokens, and zeros for padding."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns float32 [batch, length, width] of hidden states of this shape and present, bool [batch, length]."""
        hidden, present = inputs
        return hidden * tf.cast(present, hidden.dtype)[..., None]


class IsPresent(keras.layers.Layer):
    """Marks the ids that are not padding."""

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns bool [batch, length] of ids int64 [batch, length]."""
        return ids != PADDING


class VocabularyLogits(keras.layers.Layer):
    """Predicts the tokens at masked positions: logits by the table of the embeddings (BERT's tied weights)."""

    def __init__(self, embeddings: Embeddings, width: int, **more):
        """Stores the layer whose table it shares."""
        super().__init__(**more)
        self._tokens = embeddings.tokens
        self._transform = _dense(width, "transform", gelu)
        self._normalise = keras.layers.LayerNormalization(epsilon=EPSILON, name="normalise")

    def build(self, shapes):
        """Creates the bias of each token."""
        self._bias = self.add_weight("bias", [self._tokens.input_dim], initializer="zeros")
        super().build(shapes)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns logits, float32 [batch, positions, vocabulary].

        Args:
          inputs: hidden states float32 [batch, length, width], masked positions int64 [batch, positions].
        """
        hidden, positions = inputs
        at_positions = tf.gather(hidden, positions, axis=1, batch_dims=1)
        states = self._normalise(self._transform(at_positions))
        table = tf.cast(self._tokens.embeddings, states.dtype)
        return tf.cast(tf.einsum("bpw,vw->bpv", states, table), tf.float32) + tf.cast(self._bias, tf.float32)


# AutoGraph, which has nothing to do in these layers, would rewrite all of tf_keras that they call, for 20 s.
@tf.autograph.experimental.do_not_convert
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
    """Returns the embeddings layer and the hidden states, float32 [batch, length, width], of symbolic inputs.

    Args:
      ids: int64 [batch, length].
      matches: int64 [batch, length], whether the token occurs in both texts, 0 or 1.
      segments: int64 [batch, length], 0 or 1; None: an encoder without segments.
      vocabulary: number of tokens in the vocabulary.
      layers: number of layers.
      width: width of the hidden states, a multiple of `heads`.
      heads: number of attention heads.
      dropout: fraction to drop.
    """
    embeddings = Embeddings(vocabulary, ids.shape[1], width, 0 if segments is None else 2, dropout, name="embeddings")
    hidden = embeddings([ids, matches, *([] if segments is None else [segments])])
    present = IsPresent(name="present")(ids)
    for number in range(layers):
        hidden = EncoderLayer(width, heads, dropout, name=f"layer_{number}")([hidden, present])
    return embeddings, WhereWords(name="states")([hidden, present])
