"""Classifies texts, or pairs of texts, in columns of a table, such as: does this passage answer that question?

For your own texts, set their columns, and the networks' vocabulary and length:

  preprocessing: {text: [question, passage], vocabulary: 2000, length: 64}
  teachers: [{hyperparameters: {vocabulary: 2000, length: 64, classes: 2, layers: 6}}]

The teacher is BERT's encoder with its pooler; the student has no segments and no pooler, as in DistilBERT (Sanh et al.
2019, section 3).
"""

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.tasks.columns import dense
from stillhouse.modules.text.encoder import VocabularyLogits, encoder
from stillhouse.modules.text.masking import POSITIONS
from stillhouse.modules.text.wordpiece import matches_of, token_ids

TOKENS, SEGMENTS, MATCHES = "tokens", "segments", "matches"


def preprocessing_fn(inputs, custom_config):
    """Converts one or two columns of text to token ids.

    Args:
      inputs: raw columns.
      custom_config: `label`, name of the label column; `preprocessing`: {text: names of the columns, vocabulary: number
        of tokens, length: ids per example}.

    Raises:
      UserError: a column is missing.
    """
    settings, label = custom_config["preprocessing"], custom_config["label"]
    missing = [name for name in settings["text"] if name not in inputs]
    if missing:
        raise UserError(f"preprocessing.text: found {', '.join(missing)}; expected columns of: {', '.join(inputs)}")
    columns = [dense(inputs[name], "") for name in settings["text"]]
    ids, segments = token_ids(columns, settings["vocabulary"], settings["length"])
    classes = dense(inputs[label], -1 if inputs[label].dtype == tf.int64 else "")
    if classes.dtype == tf.string:
        classes = tft.compute_and_apply_vocabulary(classes, vocab_filename=label)
    return {TOKENS: ids, SEGMENTS: segments, MATCHES: matches_of(ids, segments), label: classes}


def _inputs(length: int, *names: str) -> list[Any]:
    return [keras.Input([length], dtype="int64", name=name) for name in names]


def build_teacher(
    vocabulary: int,
    length: int,
    classes: int = 2,
    layers: int = 6,
    width: int = 64,
    heads: int = 4,
    dropout: float = 0.1,
) -> keras.Model:
    """Returns BERT's classifier: the encoder, a dense layer (the pooler) over [CLS], and the classes."""
    tokens, matches, segments = _inputs(length, TOKENS, MATCHES, SEGMENTS)
    _, hidden = encoder(tokens, matches, segments, vocabulary, layers, width, heads, dropout)
    pooled = keras.layers.Dense(width, activation="tanh", name="pooler")(hidden[:, 0])
    pooled = keras.layers.Dropout(dropout)(pooled)
    return keras.Model([tokens, matches, segments], keras.layers.Dense(classes, name="classes")(pooled))


def build_student(
    vocabulary: int,
    length: int,
    classes: int = 2,
    layers: int = 3,
    width: int = 64,
    heads: int = 4,
    dropout: float = 0.1,
) -> keras.Model:
    """Returns DistilBERT's classifier: the encoder without segments, and the classes over [CLS]."""
    tokens, matches = _inputs(length, TOKENS, MATCHES)
    _, hidden = encoder(tokens, matches, None, vocabulary, layers, width, heads, dropout)
    first = keras.layers.Dropout(dropout)(hidden[:, 0])
    return keras.Model([tokens, matches], keras.layers.Dense(classes, name="classes")(first))


@tf.autograph.experimental.do_not_convert  # as in modules/text/encoder.py
def build_language_model(
    vocabulary: int,
    length: int,
    layers: int = 6,
    width: int = 64,
    heads: int = 4,
    dropout: float = 0.1,
    segments: bool = True,
) -> keras.Model:
    """Returns a masked language model for `pretraining`: the encoder, and logits of the tokens at masked positions.

    Args:
      vocabulary, length, layers, width, heads, dropout: as for the classifiers.
      segments: whether the encoder has segments, as the teacher's.
    """
    tokens, matches, *segment_inputs = _inputs(length, TOKENS, MATCHES, *([SEGMENTS] if segments else []))
    masked = keras.Input([None], dtype="int64", name=POSITIONS)
    embeddings, hidden = encoder(
        tokens, matches, segment_inputs[0] if segments else None, vocabulary, layers, width, heads, dropout
    )
    logits = VocabularyLogits(embeddings, width, name="vocabulary")([hidden, masked])
    return keras.Model([tokens, matches, *segment_inputs, masked], logits)
