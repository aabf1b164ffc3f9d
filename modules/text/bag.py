"""Text as a bag: hashed words, and the mean of their embeddings and of their neighbours'.

Hashing needs no vocabulary, so that texts without labels bring in words that the labelled ones do not have (Weinberger
et al. 2009, "Feature Hashing"). The embedding of pairs of words is fastText's (Joulin et al. 2017, "Bag of Tricks for
Efficient Text Classification", section 2.2).
"""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.text.reserved import PADDING, RESERVED

STEM = 5  # letters of a word that count
PAIR_FACTOR = 7919  # a prime, which spreads pairs of ids over the buckets
DEVIATION = 0.1  # of initial embeddings


def hashed_words(texts: tf.Tensor, buckets: int, length: int) -> tf.Tensor:
    """Returns ids of the words of each text, int64 [batch, length], padded; for a preprocessing_fn.

    A word is a run of letters, in lower case and cut to STEM of them, or any other single character. Words of camelCase
    are split.

    Args:
      texts: strings [batch].
      buckets: number of ids, including the reserved ones.
      length: number of ids per text.
    """
    split = tf.strings.lower(tf.strings.regex_replace(texts, "([a-z])([A-Z])", r"\1 \2"), encoding="utf-8")
    words = tf.strings.split(tf.strings.regex_replace(split, r"([^a-z\s])", r" \1 "))
    ids = tf.strings.to_hash_bucket_fast(tf.strings.substr(words.flat_values, 0, STEM), buckets - len(RESERVED))
    ragged = tf.RaggedTensor.from_row_splits(ids + len(RESERVED), words.row_splits, validate=False)
    return ragged.to_tensor(PADDING, shape=[None, length])


class BagOfWords(keras.layers.Layer):
    """The sum of the embeddings of a text's words and pairs of neighbouring words, over the root of their number.

    Padding, unknown and masked words, and pairs with one of them, do not count.
    """

    def __init__(self, words: int, width: int, pairs: int = 0, **more):
        """Stores the sizes.

        Args:
          words: number of embeddings of words; ids above it share them (modulo).
          width: of the embeddings.
          pairs: number of embeddings of pairs, which share them by a hash; 0: no pairs.
          more: arguments of Keras's layer.
        """
        super().__init__(**more)
        self._words, self._width, self._pairs = words, width, pairs

    def build(self, shape):
        """Creates the embeddings."""

        def table(name: str, size: int) -> tf.Variable:
            initial = keras.initializers.RandomNormal(stddev=DEVIATION)
            return self.add_weight(name, [size, self._width], initializer=initial)

        self._word_table = table("words", self._words)
        self._pair_table = table("pairs", self._pairs) if self._pairs else None
        super().build(shape)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns float32 [batch, width] of ids int64 [batch, length]."""
        present = tf.cast(ids >= len(RESERVED), self.compute_dtype)
        total, count = _summed(self._word_table, ids % self._words, present, self.compute_dtype)
        if self._pair_table is not None:
            pairs = (ids[:, :-1] * PAIR_FACTOR + ids[:, 1:]) % self._pairs
            pair_total, pair_count = _summed(
                self._pair_table, pairs, present[:, :-1] * present[:, 1:], self.compute_dtype
            )
            total, count = total + pair_total, count + pair_count
        return total / tf.sqrt(count + 1.0)


def _summed(table: tf.Variable, ids: tf.Tensor, present: tf.Tensor, dtype: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum of the embeddings where present, [batch, width], and their number, [batch, 1]."""
    embedded = tf.cast(tf.gather(table, ids), dtype)
    return tf.einsum("blw,bl->bw", embedded, present), tf.reduce_sum(present, axis=1, keepdims=True)


class BagLogits(keras.layers.Layer):
    """Predicts the words at masked positions from the bag of the others; the same logits at all positions of a text."""

    def __init__(self, words: int, **more):
        """Stores the number of words."""
        super().__init__(**more)
        self._dense = keras.layers.Dense(words, name="dense")

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns logits, float32 [batch, positions, words].

        Args:
          inputs: bags float32 [batch, width], masked positions int64 [batch, positions].
        """
        bag, positions = inputs
        logits = tf.cast(self._dense(bag), tf.float32)
        return tf.repeat(logits[:, None], tf.shape(positions)[1], axis=1)
