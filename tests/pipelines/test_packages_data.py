import csv

import pytest

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.example_data import packages
from stillhouse.pipelines.example_data.packages import EVAL, LABELLED, PACKAGES, VALIDATION, collect, masked, split

LONG = "Compute the weighted mean of all given values along one axis of an array"


def made_up(count: int = EVAL + LABELLED + VALIDATION + 5) -> dict[str, list[str]]:
    return {package: [f"{package} text {number}" for number in range(count)] for package in PACKAGES}


def test_words_that_name_a_package_are_taken_out():
    text = "A NumPy array as tf.Tensor >>> np.ones(3) in sklearn.svm, of https://a.b/c: inputs"
    assert masked(text) == "A array as in of inputs"


def test_a_word_with_a_short_name_within_it_stays():
    assert masked("Compute the inputs of plots in spaces") == "Compute the inputs of plots in spaces"


def test_texts_that_begin_or_end_alike_are_used_once(tmp_path):
    other = "Draw a coloured line between two points of the figure, whose width is given, or none"
    texts = [LONG, f"{LONG} or none", f"Or: {LONG}", other]
    source = "".join(f'def f():\n    """{text}"""\n' for text in texts)
    (tmp_path / "module.py").write_text(source)
    assert collect([("numpy", tmp_path / "module.py")]) == {"numpy": [LONG, other]}


def test_no_text_is_in_two_splits_and_each_class_has_its_share():
    splits = split(made_up())
    texts = [text for rows in splits.values() for text, _ in rows]
    assert len(texts) == len(set(texts))
    for name, count in {"labelled": LABELLED, "validation": VALIDATION, "eval": EVAL, "unlabelled": 5}.items():
        assert sorted(package for _, package in splits[name]) == sorted([*PACKAGES] * count)


def test_the_eval_split_is_the_same_whatever_is_labelled():
    first, second = split(made_up(), seed=1), split(made_up(), seed=2)
    assert sorted(first["eval"]) == sorted(second["eval"])
    assert sorted(first["labelled"]) != sorted(second["labelled"])


def test_a_package_with_too_few_texts_is_named():
    texts = made_up() | {"nltk": ["one"]}
    with pytest.raises(UserError, match="nltk: found 1 docstrings"):
        split(texts)


def test_the_unlabelled_file_has_no_labels(tmp_path):
    written = packages.write_splits(tmp_path, split(made_up()))
    with (tmp_path / "unlabelled" / "unlabelled.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["text"]
    assert len(rows) == written["unlabelled/unlabelled.csv"] == 5 * len(PACKAGES)
