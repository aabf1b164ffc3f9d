"""Masks tokens for masked language modelling.

Devlin et al. 2019, "BERT", section 3.1: of 15 % of the tokens, 80 % become [MASK], 10 % another token, 10 % stay.
Every batch is masked differently (Liu et al. 2019, "RoBERTa", section 4.1), as in DistilBERT's recipe.
"""

from dataclasses import dataclass

import tensorflow as tf

from stillhouse.modules.text.reserved import MASK, RESERVED

POSITIONS = "masked_positions"  # name of the feature
MASKED_SHARE, OTHER_SHARE = 0.8, 0.1  # of the chosen tokens; the rest stays


@dataclass(frozen=True)
class Masking:
    """The masked feature and the fraction masked."""

    tokens: str  # name of the feature with the ids
    share: float  # fraction of an example's tokens
    largest: int  # largest id of the vocabulary

    def positions(self, length: int) -> int:
        """Returns the maximum number of masked positions of an example of `length` ids."""
        return max(1, round(self.share * length))

    def __call__(self, example: tuple, seed: tf.Tensor) -> tuple:
        """Returns an example with masked ids; its labels are the original ids.

        Args:
          example: ({feature: [batch, ...]}, ids int64 [batch, length], targets).
          seed: int32 [2]; the same seed gives the same masks.

        Returns:
          The features with masked ids and POSITIONS, int64 [batch, positions]; labels int64 [batch, positions], -1
          where an example has fewer tokens to mask; the targets unchanged.
        """
        features, ids, targets = example
        shape, length = tf.shape(ids), ids.shape[1]
        max_positions = self.positions(length)
        seeds = tf.random.split(seed, 3)
        is_token = ids >= len(RESERVED)
        scores = tf.where(is_token, tf.random.stateless_uniform(shape, seeds[0]), -1.0)
        best_scores, positions = tf.math.top_k(scores, max_positions)
        token_count = tf.reduce_sum(tf.cast(is_token, tf.float32), axis=1)
        masked_count = tf.maximum(1, tf.cast(tf.round(self.share * token_count), tf.int32))
        chosen = (tf.range(max_positions)[None] < masked_count[:, None]) & (best_scores >= 0)
        originals = tf.gather(ids, positions, axis=1, batch_dims=1)

        draw = tf.random.stateless_uniform(tf.shape(originals), seeds[1])
        random_ids = tf.random.stateless_uniform(
            tf.shape(originals), seeds[2], len(RESERVED), self.largest + 1, dtype=tf.int64
        )
        replaced = tf.where(draw < MASKED_SHARE, tf.constant(MASK, tf.int64), originals)
        replaced = tf.where(draw >= 1.0 - OTHER_SHARE, random_ids, replaced)
        replaced = tf.where(chosen, replaced, originals)
        rows = tf.broadcast_to(tf.range(shape[0])[:, None], tf.shape(positions))
        masked = tf.tensor_scatter_nd_update(ids, tf.stack([rows, positions], axis=-1), replaced)
        labels = tf.where(chosen, originals, tf.constant(-1, tf.int64))
        masked_features = {self.tokens: masked, POSITIONS: tf.cast(positions, tf.int64)}
        return features | masked_features, labels, targets

    def specs(self, spec: tf.io.FixedLenFeature) -> dict[str, tf.io.FixedLenFeature]:
        """Returns the parsing specs of the masked features; `spec` is that of the ids."""
        (length,) = spec.shape
        return {self.tokens: spec, POSITIONS: tf.io.FixedLenFeature([self.positions(length)], tf.int64)}
