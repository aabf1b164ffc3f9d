"""The tasks that take a user's own columns from the settings."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.modules.errors import UserError
from stillhouse.modules.tasks import images, text
from stillhouse.modules.text.reserved import BEGIN, END, PADDING
from stillhouse.modules.text.wordpiece import joined


def transformed(preprocessing_fn, rows, folder, **preprocessing):
    """Returns the rows as Transform gives them."""
    kinds = {str: tf.string, int: tf.int64}
    spec = {name: tf.io.FixedLenFeature([1], kinds[type(value)]) for name, value in rows[0].items()}
    config = {"label": "kind", "preprocessing": preprocessing}
    given_rows = [{name: [value] for name, value in row.items()} for row in rows]
    with tft_beam.Context(temp_dir=str(folder)):
        (data, _), _ = (
            given_rows,
            tft.DatasetMetadata.from_feature_spec(spec),
        ) | tft_beam.AnalyzeAndTransformDataset(lambda inputs: preprocessing_fn(inputs, config))
    return data


def test_images_have_their_pixels_in_order_and_named_classes_an_id(tmp_path):
    chance = np.random.RandomState(0)
    pixels = chance.randint(0, 256, size=(6, 9))
    rows = [
        {f"p{number}": int(row[number]) for number in chance.permutation(9)} | {"kind": ("cat", "dog", "cat")[n % 3]}
        for n, row in enumerate(pixels)
    ]
    data = transformed(images.preprocessing_fn, rows, tmp_path, pixels="p")
    np.testing.assert_allclose(
        [row["image"] for row in data], pixels.reshape(6, 3, 3, 1).astype(np.float32) / 255, rtol=1e-6
    )
    assert [row["kind"] for row in data] == [0, 1, 0, 0, 1, 0]  # the more frequent one comes first


def test_columns_that_make_no_square_are_refused():
    inputs = {f"p{number}": tf.zeros([2, 1]) for number in range(8)} | {"kind": tf.zeros([2, 1], tf.int64)}
    with pytest.raises(UserError, match="found 8 columns p0, p1, ...; expected a square number"):
        images.preprocessing_fn(inputs, {"label": "kind", "preprocessing": {"pixels": "p"}})


def test_a_single_text_has_one_segment_and_no_matches(tmp_path):
    rows = [{"review": "good good film", "kind": 1}, {"review": "bad film bad film bad film", "kind": 0}]
    data = transformed(text.preprocessing_fn, rows, tmp_path, text=["review"], vocabulary=40, length=6)
    assert [row["kind"] for row in data] == [1, 0]
    for row in data:
        assert row["tokens"][0] == BEGIN
        assert END in row["tokens"]
        assert not row["segments"].any()
        assert not row["matches"].any()
    with pytest.raises(UserError, match="preprocessing.text: found title; expected columns of: review"):
        text.preprocessing_fn({"review": tf.constant([["x"]])}, {"label": "kind", "preprocessing": {"text": ["title"]}})


def by_hand(pieces, length):
    """Cuts the longer text until they fit, the second where they are equally long, and joins them."""
    pieces = [list(of) for of in pieces]
    while sum(map(len, pieces)) > length - len(pieces) - 1:
        longest = max(range(len(pieces)), key=lambda number: (len(pieces[number]), number))
        pieces[longest].pop()
    ids, segments = [BEGIN], [0]
    for number, of in enumerate(pieces):
        ids += [*of, END]
        segments += [number] * (len(of) + 1)
    missing = length - len(ids)
    return ids + [PADDING] * missing, segments + [0] * missing


rows_of_pieces = st.lists(st.integers(5, 9), max_size=14)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 2).flatmap(lambda texts: st.lists(st.tuples(*[rows_of_pieces] * texts), min_size=1, max_size=4)),
    st.integers(5, 16),
)
def test_texts_are_cut_and_joined_as_by_hand(rows, length):
    texts = len(rows[0])
    pieces = [tf.ragged.constant([row[n] for row in rows], dtype=tf.int64, ragged_rank=1) for n in range(texts)]
    ids, segments = joined(pieces, length)
    wanted = [by_hand(row, length) for row in rows]
    assert ids.numpy().tolist() == [one for one, _ in wanted]
    assert segments.numpy().tolist() == [one for _, one in wanted]
