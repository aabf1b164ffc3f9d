"""Tells which package a docstring is from.

The teacher is a wide bag of hashed words and pairs of words, pre-trained on all texts by predicting masked words; the
student a narrow bag of fewer words, without pairs.
"""

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.tasks.columns import dense
from stillhouse.modules.text.bag import BagLogits, BagOfWords, hashed_words
from stillhouse.modules.text.masking import POSITIONS
from stillhouse.modules.text.reserved import PADDING

TEXT, LABEL, TOKENS = "text", "package", "tokens"
CLASSES = 13  # packages
BUCKETS, LENGTH = 4096, 80  # ids of words, and words per text
WORDS_LEFT_OUT = 0.5  # of a text's words, by `augment`


def preprocessing_fn(inputs):
    """Converts the text to ids of hashed words, int64 [batch, LENGTH], and the package to its number."""
    packages = tft.compute_and_apply_vocabulary(dense(inputs[LABEL], ""), vocab_filename=LABEL)
    return {TOKENS: hashed_words(dense(inputs[TEXT], ""), BUCKETS, LENGTH), LABEL: packages}


def augment(features, seed):
    """Leaves out each word with the probability WORDS_LEFT_OUT."""
    tokens = features[TOKENS]
    left_out = tf.random.stateless_uniform(tf.shape(tokens), seed) < WORDS_LEFT_OUT
    return features | {TOKENS: tf.where(left_out, tf.constant(PADDING, tf.int64), tokens)}


def _tokens() -> keras.Input:
    return keras.Input([LENGTH], dtype="int64", name=TOKENS)


def build_language_model(
    words: int = BUCKETS, width: int = 128, pairs: int = 16384, dropout: float = 0.1
) -> keras.Model:
    """Returns a masked language model for `pretraining`: the bag of a teacher, or of a student (words: 1024, width: 16,
    pairs: 0), and logits of the masked words.
    """
    tokens, positions = _tokens(), keras.Input([None], dtype="int64", name=POSITIONS)
    bag = keras.layers.Dropout(dropout)(BagOfWords(words, width, pairs, name="bag")(tokens))
    return keras.Model([tokens, positions], BagLogits(BUCKETS, name="masked_words")([bag, positions]))


def build_teacher(width: int = 128, pairs: int = 16384, dropout: float = 0.3) -> keras.Model:
    """Returns a classifier over a normalised bag of words and pairs of words, which stays as it was pre-trained.

    A few hundred updates on ten texts of a class would only spoil millions of embeddings.
    """
    tokens = _tokens()
    bag = BagOfWords(BUCKETS, width, pairs, name="bag", trainable=False)(tokens)
    normalised = keras.layers.LayerNormalization(center=False, scale=False, name="normalise")(bag)
    hidden = keras.layers.Dropout(dropout)(normalised)
    return keras.Model(tokens, keras.layers.Dense(CLASSES, name="classes")(hidden))


def build_student(words: int = 1024, width: int = 16, dropout: float = 0.2) -> keras.Model:
    """Returns a classifier over a bag of words."""
    tokens = _tokens()
    hidden = keras.layers.Dropout(dropout)(BagOfWords(words, width, name="bag")(tokens))
    return keras.Model(tokens, keras.layers.Dense(CLASSES, name="classes")(hidden))
