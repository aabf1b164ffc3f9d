import itertools

import numpy as np
import tensorflow as tf

from stillhouse.modules.text.bag import PAIR_FACTOR, BagLogits, BagOfWords, hashed_words
from stillhouse.modules.text.reserved import MASK, PADDING, RESERVED

WORDS, WIDTH, PAIRS = 20, 3, 11


def test_a_word_has_one_id_whatever_its_case_and_its_end():
    ids = hashed_words(tf.constant(["DataFrames, data", "dataFRAME", ""]), 1000, 6).numpy()
    assert ids.shape == (3, 6)
    assert ids[0, 0] == ids[0, 3]  # data, frame, ",", data
    assert ids[2].tolist() == [PADDING] * 6
    assert (ids[ids != PADDING] >= len(RESERVED)).all()
    assert hashed_words(tf.constant(["framework"]), 1000, 1).numpy() == ids[0, 1]


def expected_bag(ids, words, pairs):
    rows = []
    for row in ids:
        vectors = [words[i % WORDS] for i in row if i >= len(RESERVED)]
        neighbours = [(a, b) for a, b in itertools.pairwise(row) if min(a, b) >= len(RESERVED)]
        if pairs is not None:
            vectors += [pairs[(a * PAIR_FACTOR + b) % PAIRS] for a, b in neighbours]
        rows.append(np.sum([np.zeros(WIDTH), *vectors], axis=0) / np.sqrt(len(vectors) + 1))
    return np.array(rows)


def test_a_bag_sums_words_and_pairs_without_padding_and_masked_words():
    ids = np.array([[7, 33, MASK, 9, 8, PADDING], [PADDING] * 6, [5, 6, 7, 8, 9, 10]], np.int64)
    for pairs in (PAIRS, 0):
        bag = BagOfWords(WORDS, WIDTH, pairs)
        answer = bag(tf.constant(ids)).numpy()
        tables = [weight.numpy() for weight in bag.weights]
        np.testing.assert_allclose(answer, expected_bag(ids, tables[0], tables[1] if pairs else None), rtol=1e-5)


def test_all_masked_positions_of_a_text_have_the_same_logits():
    logits = BagLogits(WORDS)([tf.random.normal([2, WIDTH]), tf.zeros([2, 4], tf.int64)])
    assert logits.shape == (2, 4, WORDS)
    np.testing.assert_array_equal(logits[:, 0], logits[:, 3])
    assert not np.allclose(logits[0, 0], logits[1, 0])
