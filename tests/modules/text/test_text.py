"""Sub-words, their masking, and the encoder, against plain Python and NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
import tf_keras as keras

from stillhouse.modules.models.heads import HEADS, MASKED, masked_loss
from stillhouse.modules.tasks.text import build_language_model, build_student, build_teacher
from stillhouse.modules.text.masking import POSITIONS, Masking
from stillhouse.modules.text.reserved import BEGIN, END, MASK, PADDING, RESERVED, UNKNOWN
from stillhouse.modules.text.wordpiece import matches_of, token_ids

LENGTH = 16
TEXTS = [
    ("Which function returns the sum?", "Adds up all of the values and returns the sum."),
    ("Which function sorts?", "Sorts the rows, the smallest first; sorted rows are returned."),
    ("Which class holds rows?", "Rows are held and returned one after the other, over and over and over again."),
]


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """Ids and segments of TEXTS, and the vocabulary that was learnt from them."""
    folder = tmp_path_factory.mktemp("wordpieces")

    def preprocessing_fn(inputs):
        ids, segments = token_ids([inputs["question"], inputs["passage"]], vocabulary=60, length=LENGTH)
        return {"ids": ids, "segments": segments}

    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in ("question", "passage")}
    rows = [dict(zip(spec, texts, strict=True)) for texts in TEXTS]
    metadata = tft.DatasetMetadata.from_feature_spec(spec)
    with tft_beam.Context(temp_dir=str(folder)):
        (data, _), function = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn)
        function | tft_beam.WriteTransformFn(str(folder / "graph"))
    (path,) = (folder / "graph").rglob("assets/wordpieces")
    return data, path.read_text().splitlines()


def pieces_of(word, vocabulary):
    """WordPiece as BERT's paper describes it: the longest piece that fits comes first."""
    found, begin = [], 0
    while begin < len(word):
        prefix = "##" if begin else ""
        for end in range(len(word), begin, -1):
            if prefix + word[begin:end] in vocabulary:
                found.append(vocabulary.index(prefix + word[begin:end]))
                begin = end
                break
        else:
            return [UNKNOWN]
    return found


def test_texts_become_the_longest_sub_words_of_a_learnt_vocabulary(transformed):
    data, vocabulary = transformed
    assert vocabulary[: len(RESERVED)] == RESERVED
    assert len(RESERVED) < len(vocabulary) <= 60
    assert "returned" in vocabulary or "##ed" in vocabulary or "return" in vocabulary
    question = [piece for word in ("which", "function", "sorts", "?") for piece in pieces_of(word, vocabulary)]
    ids, segments = data[1]["ids"], data[1]["segments"]
    end = ids.tolist().index(END)
    assert ids[0] == BEGIN
    assert ids[1:end].tolist() == question[: end - 1]
    words = (ids != PADDING).sum()
    assert segments.tolist() == [0] * (end + 1) + [1] * (words - end - 1) + [0] * (LENGTH - words)


def test_texts_that_are_too_long_are_cut_the_longer_one_first(transformed):
    data, vocabulary = transformed
    ids = data[2]["ids"].tolist()
    assert len(ids) == LENGTH
    assert ids.count(END) == 2
    assert ids[-1] == END
    question = [piece for word in ("which", "class", "holds", "rows", "?") for piece in pieces_of(word, vocabulary)]
    passage = [piece for word in ("rows", "are", "held") for piece in pieces_of(word, vocabulary)]
    kept, room = ids.index(END) - 1, LENGTH - 3
    assert kept == min(len(question), (room + 1) // 2)
    assert ids[1 : kept + 1] == question[:kept]
    second = ids[kept + 2 : -1]
    assert len(second) == room - kept
    assert second[: len(passage)] == passage[: len(second)]


def test_a_sub_word_matches_if_it_stands_in_the_other_text_too():
    ids = tf.constant(
        [[BEGIN, 7, 8, 7, END, 9, 7, UNKNOWN, END, PADDING], [BEGIN, 7, 7, END] + [PADDING] * 6], tf.int64
    )
    segments = tf.constant([[0] * 5 + [1] * 4 + [0], [0] * 10], tf.int64)
    assert matches_of(ids, segments).numpy().tolist() == [[0, 1, 0, 1, 0, 0, 1, 0, 0, 0], [0] * 10]


def examples(count=400, length=20, vocabulary=50):
    chance = np.random.RandomState(0)
    ids = chance.randint(len(RESERVED), vocabulary, size=(count, length))
    words = chance.randint(3, length - 2, size=count)
    for row, own in zip(ids, words, strict=True):
        row[0], row[own + 1], row[own + 2 :] = BEGIN, END, PADDING
    return ids, words


def test_of_the_sub_words_a_share_is_masked_and_the_labels_say_what_stood_there():
    ids, words = examples()
    masking = Masking("tokens", 0.15, largest=49)
    (features, labels, _) = masking(({}, tf.constant(ids, tf.int64), {}), tf.constant([1, 2]))
    masked, positions, labels = features["tokens"].numpy(), features[POSITIONS].numpy(), labels.numpy()
    chosen = labels >= 0
    np.testing.assert_array_equal(chosen.sum(axis=1), np.maximum(1, np.round(0.15 * words.astype(np.float32))))
    originals = np.take_along_axis(ids, positions, axis=1)
    np.testing.assert_array_equal(labels[chosen], originals[chosen])
    assert (originals[chosen] >= len(RESERVED)).all()
    now = np.take_along_axis(masked, positions, axis=1)
    assert (now[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.05)
    other = (now != MASK) & (now != originals)
    assert other[chosen].mean() == pytest.approx(0.1, abs=0.04)
    assert masked.max() < 50
    untouched = np.ones_like(ids, bool)
    for row, (places, own) in enumerate(zip(positions, chosen, strict=True)):
        untouched[row, places[own]] = False
    np.testing.assert_array_equal(masked[untouched], ids[untouched])


def test_masks_differ_with_the_seed():
    ids, _ = examples(20)
    masking = Masking("tokens", 0.15, largest=49)
    first, again, other = (
        masking(({}, tf.constant(ids, tf.int64), {}), tf.constant(seed))[0]["tokens"].numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_masked_loss_is_the_mean_over_the_masked_positions():
    chance = np.random.RandomState(1)
    logits, labels = chance.normal(size=(2, 3, 5)).astype(np.float32), np.array([[4, -1, 0], [2, -1, -1]])
    log_softmax = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    wanted = [-(log_softmax[0, 0, 4] + log_softmax[0, 2, 0]) / 2, -log_softmax[1, 0, 2]]
    np.testing.assert_allclose(masked_loss(tf.constant(labels), tf.constant(logits)), wanted, rtol=1e-5)
    head = HEADS[MASKED]
    assert head.is_labelled(tf.constant([[1, -1], [-1, -1]])).numpy().tolist() == [True, False]
    per_position = tf.constant([[1.0, 9.0, 3.0], [5.0, 9.0, 9.0]])
    np.testing.assert_allclose(head.of_examples(per_position, tf.constant(labels)), [2.0, 5.0])


SIZE = {"vocabulary": 50, "length": 20, "layers": 2, "width": 16, "heads": 2}


def test_padding_does_not_change_what_the_encoder_says():
    keras.utils.set_random_seed(1)
    model = build_student(**SIZE)
    ids = np.array([[BEGIN, 7, 8, 9, END] + [PADDING] * 15])
    matches = (ids == 8).astype(int)
    states = keras.Model(model.inputs, model.get_layer("states").output)([ids, matches]).numpy()
    assert not states[0, 5:].any()
    shorter = build_student(**SIZE | {"length": 5})
    for weight, source in zip(shorter.weights, model.weights, strict=True):
        weight.assign(source[:5] if "positions" in weight.name else source)
    np.testing.assert_allclose(shorter([ids[:, :5], matches[:, :5]]), model([ids, matches]), rtol=1e-4, atol=1e-5)


def test_a_layer_is_attention_and_feed_forward_as_numpy_computes_them():
    keras.utils.set_random_seed(2)
    model = build_student(**SIZE | {"layers": 1})
    for weight in model.weights:  # biases and normalisations start at zeros and ones, which would hide mistakes
        weight.assign(weight + np.random.RandomState(len(weight.name)).normal(scale=0.1, size=weight.shape))
    ids = np.array([[BEGIN, 7, 8, END] + [PADDING] * 16])
    matches = (ids == 7).astype(int)
    found = {weight.name.removesuffix(":0"): weight.numpy() for weight in model.weights}

    def normal(values, name):
        mean, deviation = values.mean(-1, keepdims=True), values.std(-1, keepdims=True)
        return (values - mean) / deviation * found[f"{name}/gamma"] + found[f"{name}/beta"]

    tables = {name: found[f"embeddings/{name}/embeddings"] for name in ("tokens", "positions", "matches")}
    hidden = normal(
        tables["tokens"][ids[0]] + tables["positions"] + tables["matches"][matches[0]], "embeddings/normalise"
    )
    part = "layer_0/attention"
    query, key, value = (
        np.einsum("lw,whd->hld", hidden, found[f"{part}/{name}/kernel"]) + found[f"{part}/{name}/bias"][:, None]
        for name in ("query", "key", "value")
    )
    scores = np.einsum("hqd,hkd->hqk", query, key) / np.sqrt(8)
    scores[:, :, 4:] = -np.inf
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    attended = np.einsum("hqk,hkd->qhd", weights, value)
    attended = np.einsum("qhd,hdw->qw", attended, found[f"{part}/attention_output/kernel"])
    hidden = normal(hidden + attended + found[f"{part}/attention_output/bias"], "layer_0/normalise_0")
    wide = hidden @ found["layer_0/widen/kernel"] + found["layer_0/widen/bias"]
    wide = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    fed = wide @ found["layer_0/narrow/kernel"] + found["layer_0/narrow/bias"]
    hidden = normal(hidden + fed, "layer_0/normalise_1")
    wanted = hidden[0] @ found["classes/kernel"] + found["classes/bias"]
    np.testing.assert_allclose(model([ids, matches])[0], wanted, rtol=1e-3, atol=1e-4)


def test_a_language_model_speaks_by_its_own_embeddings():
    model = build_language_model(**SIZE)
    names = [weight.name for weight in model.weights]
    assert len(names) == len(set(names))
    assert sum(weight.shape == (50, 16) for weight in model.weights) == 1
    student = build_language_model(**SIZE, segments=False)
    assert {weight.name for weight in student.weights} < set(names)
    ids, none = np.full([3, 20], 7), np.zeros([3, 20], int)
    logits = model({"tokens": ids, "segments": none, "matches": none, POSITIONS: np.array([[1, 2]] * 3)})
    assert logits.shape == (3, 2, 50)


def test_a_teacher_has_segments_and_a_pooler_and_its_student_has_not():
    teacher, student = ({weight.name for weight in build(**SIZE).weights} for build in (build_teacher, build_student))
    without = {name.partition("/")[0] for name in teacher - student}
    assert student < teacher
    assert without == {"embeddings", "pooler"}
