"""BERT's uncased tokens by a published vocabulary, in Transform: nothing is learnt.

Text is taken apart as in BERT's BasicTokenizer (Devlin et al. 2019): lower case, accents removed, each punctuation mark
and each CJK character a word of its own; then each word into the longest pieces that the vocabulary has.
"""

from pathlib import Path

import tensorflow as tf
import tensorflow_text as text

from stillhouse.modules.errors import UserError

PADDING, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
ACCENTS = r"\p{Mn}"  # after decomposition into letters and accents
CONTROLS = r"[\p{Cc}\p{Cf}\x{FFFD}]"  # but for white space
# ASCII's symbols are punctuation to BERT, other symbols (currency, arithmetic) are not.
ALONE = r"([!-/:-@\[-`{-~]|\p{P}|[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2FA1F}\x{F900}-\x{FAFF}])"


def read_vocabulary(path: Path) -> list[str]:
    """Returns the tokens of a `vocab.txt`, by id.

    Raises:
      UserError: a reserved token is missing, or padding has not the id 0.
    """
    # Not splitlines: some tokens are other line separators of Unicode.
    tokens = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    missing = [token for token in (PADDING, UNKNOWN, BEGIN, END) if token not in tokens]
    if missing or tokens[0] != PADDING:
        raise UserError(
            f"encoder: {path}: found no {', '.join(missing) or f'{PADDING} in the first line'}; expected the "
            "vocabulary of an uncased BERT encoder"
        )
    return tokens


def words_of(texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns the words of each text, strings [batch, (words)], of strings [batch]."""
    decomposed = text.normalize_utf8(tf.strings.lower(texts, encoding="utf-8"), "NFD")
    spaced = tf.strings.regex_replace(decomposed, r"[\t\n\r\p{Z}]", " ")
    plain = tf.strings.regex_replace(tf.strings.regex_replace(spaced, ACCENTS, ""), CONTROLS, "")
    return tf.strings.split(tf.strings.regex_replace(plain, ALONE, r" \1 "))


def token_ids(texts: tf.Tensor, path: Path, length: int) -> tf.Tensor:
    """Returns [CLS] tokens [SEP], cut and padded to `length`, int64 [batch, length]; for a preprocessing_fn.

    Args:
      texts: strings [batch].
      path: of the vocabulary, one token per line; it becomes an asset of the models.
      length: number of ids per text.

    Raises:
      UserError: the vocabulary lacks a reserved token.
    """
    tokens = read_vocabulary(path)
    unknown, begin, end = (tokens.index(token) for token in (UNKNOWN, BEGIN, END))
    lines = tf.lookup.TextFileInitializer(
        str(path), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    tokenizer = text.WordpieceTokenizer(tf.lookup.StaticHashTable(lines, unknown), token_out_type=tf.int64)
    words = words_of(texts)
    word_pieces = tokenizer.tokenize(words.flat_values)
    splits = tf.gather(word_pieces.row_splits, words.row_splits)
    pieces = tf.RaggedTensor.from_row_splits(word_pieces.flat_values, splits, validate=False)[:, : length - 2]
    rows = pieces.nrows()
    framed = tf.concat(
        [tf.fill([rows, 1], tf.constant(begin, tf.int64)), pieces, tf.fill([rows, 1], tf.constant(end, tf.int64))],
        axis=1,
    )
    return tf.ensure_shape(framed.to_tensor(0, shape=[None, length]), [None, length])
