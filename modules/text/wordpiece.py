"""Subword tokens: learns a vocabulary over all data in Transform's analysis, and converts texts to its ids.

TensorFlow Text learns and applies the vocabulary (WordPiece, as in BERT). It learns from word counts, which Beam sums,
so that it is one of Transform's analyses. Words are split, and two texts are cut and joined, by a few plain operations:
TensorFlow Text's own make a graph of five thousand operations, a cost for every process that loads the model.
"""

import contextlib
import os
import uuid
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_text as text
import tensorflow_transform as tft
from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner
from tensorflow_transform.beam.experimental import PTransformAnalyzer

from stillhouse.modules.text.reserved import BEGIN, END, PADDING, RESERVED, UNKNOWN

MIN_OCCURRENCES = 2  # of a word, for the vocabulary to learn from it
# Number of the most frequent words per token: rarer ones change little, and learning takes two milliseconds per word.
WORDS_PER_PIECE = 4


class _Vocabulary(PTransformAnalyzer):
    """Maps batches of words to the path of a file with the vocabulary, one token per line."""

    def __init__(self, size: int, name: str):
        super().__init__()
        self._size = size
        self._name = name

    def expand(self, batches):
        """Builds the transform, as Beam requires."""
        return (
            batches
            | "Words" >> beam.FlatMap(lambda batch: batch[0].reshape(-1).tolist())
            | "Count" >> beam.combiners.Count.PerElement()
            | "Often" >> beam.Filter(lambda counted: counted[1] >= MIN_OCCURRENCES)
            | "Together" >> beam.combiners.ToList()
            | "Learn" >> beam.Map(_learnt, self._size, os.path.join(self.base_temp_dir, uuid.uuid4().hex), self._name)
        )


def _learnt(counted: Sequence[tuple[bytes, int]], size: int, folder: str, name: str) -> np.ndarray:
    """Learns the vocabulary and returns the path of its file."""
    # The order decides between equally good tokens, so it must not depend on Beam's workers.
    frequent = sorted(counted, key=lambda word_count: (-word_count[1], word_count[0]))[: WORDS_PER_PIECE * size]
    words = [(word.decode(), count) for word, count in frequent]
    max_count, min_count = (words[0][1], words[-1][1]) if words else (1, 1)
    pieces = learner.learn(words, size, RESERVED, upper_thresh=max_count, lower_thresh=min_count)
    tf.io.gfile.makedirs(folder)
    path = os.path.join(folder, name)
    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(f"{piece}\n" for piece in pieces))
    return np.array(path.encode())


def token_ids(
    columns: Sequence[tf.Tensor], vocabulary: int, length: int, name: str = "wordpieces"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns texts as token ids, [CLS] first [SEP] second [SEP] as in BERT, padded; for a preprocessing_fn.

    If two texts are too long together, the longer one is cut first.

    Args:
      columns: strings [batch] each: one text, or two that belong together.
      vocabulary: maximum number of tokens, including the reserved ones; learned over all columns.
      length: number of ids per example.
      name: name of the vocabulary's file among the assets.

    Returns:
      ids and segments, int64 [batch, length]; the segment is the number of the text, 0 or 1.
    """
    words = [_split(column).flat_values for column in columns]
    (path,) = tft.experimental.ptransform_analyzer(
        inputs=[tf.concat(words, axis=0)],
        ptransform=_Vocabulary(vocabulary, name),
        output_dtypes=[tf.string],
        output_shapes=[[]],
        output_asset_default_values=[b"the vocabulary before the analysis"],
        name=name,
    )

    def looked_up(texts: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with contextlib.ExitStack() as stack:
            if tf.inside_function() and isinstance(file, tf.__internal__.EagerTensor):
                stack.enter_context(tf.init_scope())  # the table is filled once, not in every call
            lines = tf.lookup.TextFileInitializer(
                file, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            )
            table = tf.lookup.StaticHashTable(lines, UNKNOWN)
            size = table.size()
        tokenizer = text.WordpieceTokenizer(table, token_out_type=tf.int64)
        pieces = [_pieces(tokenizer, column) for column in tf.unstack(texts, axis=1)]
        return tf.stack(joined(pieces, length), axis=1), size

    encoded = tft.apply_vocabulary(tf.stack(columns, axis=1), path, lookup_fn=looked_up)
    return tf.ensure_shape(encoded[:, 0], [None, length]), tf.ensure_shape(encoded[:, 1], [None, length])


def matches_of(ids: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """Returns whether each token occurs in both texts, int64 [batch, length] of 0 and 1.

    The exact-match feature of Chen et al. 2017, "Reading Wikipedia to Answer Open-Domain Questions", section 3.2. Large
    pre-trained networks find matches by themselves; one that has seen a few thousand texts does not.

    Args:
      ids: int64 [batch, length], from `token_ids`.
      segments: int64 [batch, length], from `token_ids`.
    """
    equal = ids[:, :, None] == ids[:, None, :]
    elsewhere = segments[:, :, None] != segments[:, None, :]
    matches = tf.reduce_any(equal & elsewhere, axis=2) & (ids >= len(RESERVED))
    return tf.cast(matches, tf.int64)


def joined(pieces: Sequence[tf.RaggedTensor], length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ids and segments, int64 [batch, length], of one text or two, int64 [batch, (tokens)] each.

    If two are too long together, the longer one is cut until they are equally long, then both.
    """
    room = length - len(pieces) - 1
    sizes = [text_pieces.row_lengths() for text_pieces in pieces]
    if len(pieces) == 1:
        kept_sizes = [tf.minimum(sizes[0], room)]
    else:
        first = tf.minimum(sizes[0], tf.maximum(room - sizes[1], (room + 1) // 2))
        kept_sizes = [first, tf.minimum(sizes[1], room - first)]
    position = tf.range(length, dtype=tf.int64)[None]
    ids = tf.where(position == 0, tf.constant(BEGIN, tf.int64), tf.constant(PADDING, tf.int64))
    ids = tf.repeat(ids, tf.shape(sizes[0])[0], axis=0)
    segments, begin = tf.zeros_like(ids), tf.ones_like(sizes[0])
    for number, (text_pieces, size) in enumerate(zip(pieces, kept_sizes, strict=True)):
        within = position - begin[:, None]
        dense = text_pieces.to_tensor(PADDING, shape=[None, length])
        moved = tf.gather(dense, tf.clip_by_value(within, 0, length - 1), axis=1, batch_dims=1)
        end = (begin + size)[:, None]
        ids = tf.where((within >= 0) & (position < end), moved, ids)
        ids = tf.where(position == end, tf.constant(END, tf.int64), ids)
        segments = tf.where((within >= 0) & (position <= end), tf.constant(number, tf.int64), segments)
        begin += size + 1
    return ids, segments


def _split(column: tf.Tensor) -> tf.RaggedTensor:
    """Returns the words of each text in lower case; each character that is neither letter nor digit is a word."""
    lower = tf.strings.lower(column, encoding="utf-8")
    return tf.strings.split(tf.strings.regex_replace(lower, r"([^\p{L}\p{N}\s])", r" \1 "))


def _pieces(tokenizer: text.WordpieceTokenizer, column: tf.Tensor) -> tf.RaggedTensor:
    """Returns the tokens of each text, int64 [batch, (tokens)]."""
    words = _split(column)
    word_pieces = tokenizer.tokenize(words.flat_values)
    splits = tf.gather(word_pieces.row_splits, words.row_splits)
    return tf.RaggedTensor.from_row_splits(word_pieces.flat_values, splits, validate=False)
