"""Masks sub-words, so that a network learns a language by telling what was there.

Devlin et al. 2019, "BERT", section 3.1: of 15 % of the sub-words, 80 % become [MASK], 10 % another one, 10 % stay.
Every batch is masked anew (Liu et al. 2019, "RoBERTa", section 4.1), as DistilBERT's recipe has it.
"""

from dataclasses import dataclass

import tensorflow as tf

from stillhouse.modules.text.reserved import MASK, RESERVED

POSITIONS = "masked_positions"  # name of the feature
MASKED_SHARE, OTHER_SHARE = 0.8, 0.1  # of what is chosen; the rest stays


@dataclass(frozen=True)
class Masking:
    """What is masked, and how much."""

    tokens: str  # name of the feature with the ids
    share: float  # of an example's sub-words
    largest: int  # id of the vocabulary

    def positions(self, length: int) -> int:
        """Returns the most positions of an example of `length` ids that are masked."""
        return max(1, round(self.share * length))

    def __call__(self, example: tuple, seed: tf.Tensor) -> tuple:
        """Returns an example with masked ids: its labels are what stood there.

        Args:
          example: ({feature: [batch, ...]}, ids int64 [batch, length], targets).
          seed: int32 [2]; the same seed, the same masks.

        Returns:
          The features with masked ids and POSITIONS, int64 [batch, positions]; labels int64 [batch, positions], -1
          where an example has fewer sub-words to mask; the targets as they are.
        """
        features, ids, targets = example
        shape, length = tf.shape(ids), ids.shape[1]
        most = self.positions(length)
        seeds = tf.random.split(seed, 3)
        is_word = ids >= len(RESERVED)
        chance = tf.where(is_word, tf.random.stateless_uniform(shape, seeds[0]), -1.0)
        found, positions = tf.math.top_k(chance, most)
        words = tf.reduce_sum(tf.cast(is_word, tf.float32), axis=1)
        wanted = tf.maximum(1, tf.cast(tf.round(self.share * words), tf.int32))
        chosen = (tf.range(most)[None] < wanted[:, None]) & (found >= 0)
        originals = tf.gather(ids, positions, axis=1, batch_dims=1)

        fate = tf.random.stateless_uniform(tf.shape(originals), seeds[1])
        others = tf.random.stateless_uniform(
            tf.shape(originals), seeds[2], len(RESERVED), self.largest + 1, dtype=tf.int64
        )
        replaced = tf.where(fate < MASKED_SHARE, tf.constant(MASK, tf.int64), originals)
        replaced = tf.where(fate >= 1.0 - OTHER_SHARE, others, replaced)
        replaced = tf.where(chosen, replaced, originals)
        rows = tf.broadcast_to(tf.range(shape[0])[:, None], tf.shape(positions))
        masked = tf.tensor_scatter_nd_update(ids, tf.stack([rows, positions], axis=-1), replaced)
        labels = tf.where(chosen, originals, tf.constant(-1, tf.int64))
        made = {self.tokens: masked, POSITIONS: tf.cast(positions, tf.int64)}
        return features | made, labels, targets

    def specs(self, spec: tf.io.FixedLenFeature) -> dict[str, tf.io.FixedLenFeature]:
        """Returns the parsing specs of the features that it makes; `spec` is that of the ids."""
        (length,) = spec.shape
        return {self.tokens: spec, POSITIONS: tf.io.FixedLenFeature([self.positions(length)], tf.int64)}
