"""Sub-words: a vocabulary learnt over the whole data by Transform's analysis, and texts as its ids.

The vocabulary is learnt and applied by TensorFlow Text (WordPiece, as in BERT). It is learnt from counts of words,
which Beam adds up; that makes it one of Transform's analyses. Words are split, and two texts are cut and joined, by a
few plain operations: TensorFlow Text's own make a graph of five thousand, which everything that loads the model pays
for.
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

FEWEST_OCCURRENCES = 2  # of a word that the vocabulary is learnt from
# Of the most frequent words, for each sub-word: rarer ones change little, and learning takes two milliseconds a word.
WORDS_PER_PIECE = 4


class _Vocabulary(PTransformAnalyzer):
    """From batches of words to the path of a file with the vocabulary, a sub-word a line."""

    def __init__(self, size: int, name: str):
        super().__init__()
        self._size = size
        self._name = name

    def expand(self, batches):
        """As Beam asks."""
        return (
            batches
            | "Words" >> beam.FlatMap(lambda batch: batch[0].reshape(-1).tolist())
            | "Count" >> beam.combiners.Count.PerElement()
            | "Often" >> beam.Filter(lambda counted: counted[1] >= FEWEST_OCCURRENCES)
            | "Together" >> beam.combiners.ToList()
            | "Learn" >> beam.Map(_learnt, self._size, os.path.join(self.base_temp_dir, uuid.uuid4().hex), self._name)
        )


def _learnt(counted: Sequence[tuple[bytes, int]], size: int, folder: str, name: str) -> np.ndarray:
    """Learns the vocabulary and returns the path of its file."""
    # The order decides between sub-words that are as good, so it must not depend on Beam's workers.
    often = sorted(counted, key=lambda one: (-one[1], one[0]))[: WORDS_PER_PIECE * size]
    words = [(word.decode(), count) for word, count in often]
    most, least = (words[0][1], words[-1][1]) if words else (1, 1)
    found = learner.learn(words, size, RESERVED, upper_thresh=most, lower_thresh=least)
    tf.io.gfile.makedirs(folder)
    path = os.path.join(folder, name)
    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(f"{piece}\n" for piece in found))
    return np.array(path.encode())


def token_ids(
    columns: Sequence[tf.Tensor], vocabulary: int, length: int, name: str = "wordpieces"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns texts as ids of sub-words, [CLS] first [SEP] second [SEP] as in BERT, padded; for a preprocessing_fn.

    Of texts that are too long together, the longer one is cut first.

    Args:
      columns: strings [batch] each: one text, or two that belong together.
      vocabulary: sub-words at the most, the reserved ones included; learnt over all of the columns.
      length: ids of an example.
      name: of the vocabulary's file among the assets.

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

    found = tft.apply_vocabulary(tf.stack(columns, axis=1), path, lookup_fn=looked_up)
    return tf.ensure_shape(found[:, 0], [None, length]), tf.ensure_shape(found[:, 1], [None, length])


def matches_of(ids: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """Returns which sub-words stand in both texts, int64 [batch, length] of 0 and 1.

    The exact-match feature of Chen et al. 2017, "Reading Wikipedia to Answer Open-Domain Questions", section 3.2. Large
    pre-trained networks find matches by themselves; one that has seen a few thousand texts does not.

    Args:
      ids: int64 [batch, length], as `token_ids` gives them.
      segments: likewise.
    """
    equal = ids[:, :, None] == ids[:, None, :]
    elsewhere = segments[:, :, None] != segments[:, None, :]
    found = tf.reduce_any(equal & elsewhere, axis=2) & (ids >= len(RESERVED))
    return tf.cast(found, tf.int64)


def joined(pieces: Sequence[tf.RaggedTensor], length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ids and segments, int64 [batch, length], of one text or two, int64 [batch, (sub-words)] each.

    Of two that are too long together, the longer one is cut until they are equally long, then both.
    """
    room = length - len(pieces) - 1
    sizes = [of.row_lengths() for of in pieces]
    if len(pieces) == 1:
        kept = [tf.minimum(sizes[0], room)]
    else:
        first = tf.minimum(sizes[0], tf.maximum(room - sizes[1], (room + 1) // 2))
        kept = [first, tf.minimum(sizes[1], room - first)]
    place = tf.range(length, dtype=tf.int64)[None]
    ids = tf.where(place == 0, tf.constant(BEGIN, tf.int64), tf.constant(PADDING, tf.int64))
    ids = tf.repeat(ids, tf.shape(sizes[0])[0], axis=0)
    segments, begin = tf.zeros_like(ids), tf.ones_like(sizes[0])
    for number, (of, size) in enumerate(zip(pieces, kept, strict=True)):
        within = place - begin[:, None]
        dense = of.to_tensor(PADDING, shape=[None, length])
        moved = tf.gather(dense, tf.clip_by_value(within, 0, length - 1), axis=1, batch_dims=1)
        end = (begin + size)[:, None]
        ids = tf.where((within >= 0) & (place < end), moved, ids)
        ids = tf.where(place == end, tf.constant(END, tf.int64), ids)
        segments = tf.where((within >= 0) & (place <= end), tf.constant(number, tf.int64), segments)
        begin += size + 1
    return ids, segments


def _split(column: tf.Tensor) -> tf.RaggedTensor:
    """Returns the words of each text in small letters; what is neither letter nor digit stands for itself."""
    small = tf.strings.lower(column, encoding="utf-8")
    return tf.strings.split(tf.strings.regex_replace(small, r"([^\p{L}\p{N}\s])", r" \1 "))


def _pieces(tokenizer: text.WordpieceTokenizer, column: tf.Tensor) -> tf.RaggedTensor:
    """Returns the sub-words of each text, int64 [batch, (sub-words)]."""
    words = _split(column)
    of_words = tokenizer.tokenize(words.flat_values)
    splits = tf.gather(of_words.row_splits, words.row_splits)
    return tf.RaggedTensor.from_row_splits(of_words.flat_values, splits, validate=False)
