"""The question-passage pairs of pipelines/example_data/docstrings.py, from made-up packages."""

import csv
from collections import Counter

import pytest

from stillhouse.pipelines.example_data import docstrings

LONG = "To {} goes through all of the rows one after the other until there is nothing left to do for anyone."


def source(*names):
    return "\n".join(
        f'def {name}():\n    """Return the {name} of all rows.\n\n    {LONG.format(name)}\n    """\n' for name in names
    )


@pytest.fixture
def packages(tmp_path):
    """Twelve packages of three functions each; one has a copy of another's, and a file that is no Python."""
    found = []
    for number in range(12):
        path = tmp_path / f"package{number}.py"
        path.write_text(source(*(f"word{number}{letter}" for letter in "abc")))
        found.append((f"package{number}", path))
    copy = tmp_path / "copy.py"
    copy.write_text(source("word0a", "word0b"))
    broken = tmp_path / "broken.py"
    broken.write_text("def {{ template }}:")
    return [*found, ("copies", copy), ("package1", broken)]


@pytest.mark.parametrize(
    ("summary", "question"),
    [
        ("Return the sum of two numbers.", "Which function returns the sum of two numbers?"),
        ("Applies a mask to rows", "Which function applies a mask to rows?"),
        ("Match a pattern from the start.", "Which function matches a pattern from the start?"),
        ("Copy the file to a place.", "Which function copies the file to a place?"),
        ("HTTP client with a pool.", "Which function is for HTTP client with a pool?"),
        ("Thin wrapper around a socket.", "Which function is for thin wrapper around a socket?"),
    ],
)
def test_a_summary_becomes_a_question(summary, question):
    assert docstrings.question_of(summary, "function") == question


def test_only_what_is_long_enough_to_ask_about_is_taken():
    text = (
        source("total")
        + 'def short():\n    """Return it.\n\n    x\n    """\n'
        + f'class Pool:\n    """Hold several workers at once.\n\n    {LONG.format("keeps")}\n    """\n'
        + "def nothing():\n    pass\n"
        + f'def odd():\n    """Return a bell\\x07 of all.\n\n    {LONG.format("rings")}\n    """\n'
    )
    found = list(docstrings.docstrings_in(text, "p", "m"))
    assert [one.question for one in found] == [
        "Which function returns the total of all rows?",
        "Which class holds several workers at once?",
    ]
    assert found[0].passage == LONG.format("total")


def test_a_copy_in_another_package_is_taken_once(packages):
    found = docstrings.collect(packages)
    assert len(found) == 36
    assert Counter(one.package for one in found)["copies"] == 0


def test_a_package_and_its_family_are_of_one_split():
    sizes = {"tensorflow": 50, "keras": 5, "python": 30} | {f"p{number}": 5 for number in range(10)}
    made = [docstrings.Docstring(name, "m", f"{name} {n}", "") for name, size in sizes.items() for n in range(size)]
    split = docstrings.split_of_packages(made)
    assert split["tensorflow"] == split["keras"] == split["python"] == "train"
    share = sum(split[one.package] == "eval" for one in made) / len(made)
    assert 0.2 <= share < 0.24
    assert docstrings.split_of_packages(made) == split


def test_each_question_has_its_passage_once_and_others_that_are_none_of_its_own(packages):
    found = docstrings.collect(packages)
    nearest = docstrings.similar(found, 5)
    assert all(number not in others for number, others in enumerate(nearest))
    rows = docstrings.candidates(found, nearest)
    assert rows == docstrings.candidates(found, nearest)
    for number, one in enumerate(found):
        own = [row for row in rows if row["question_id"] == number]
        assert [row["candidate"] for row in own] == ["own", "same_module", "hard", "random", "random"]
        assert [row["relevant"] for row in own] == [1, 0, 0, 0, 0]
        assert own[0]["passage"] == one.passage
        assert len({row["passage"] for row in own}) == 5
        beside = next(other for other in found if other.passage == own[1]["passage"])
        assert beside.module == one.module


def test_the_nearest_passage_shares_words_with_the_question():
    made = [
        docstrings.Docstring("p", "m", "Which function sorts violins?", "unrelated words about nothing"),
        docstrings.Docstring("p", "m", "Which function paints?", "orchestras where violins are sorted"),
        docstrings.Docstring("p", "m", "Which function swims?", "the deep blue sea"),
    ]
    assert docstrings.similar(made, 1)[0] == [1]


def test_what_is_written_is_read_again_and_no_question_is_in_both_splits(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "installed_sources", lambda: packages)
    monkeypatch.setattr(docstrings, "provenance", lambda *_: [])
    written = docstrings.write(tmp_path / "out")
    asked, counts = {}, {}
    for name in ("train", "eval"):
        with (tmp_path / "out" / "pairs" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        counts[f"pairs/{name}.csv"] = len(rows)
        asked[name] = {row["question"] for row in rows}
    assert not asked["train"] & asked["eval"]
    with (tmp_path / "out" / "unlabelled" / "unlabelled.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert "relevant" not in rows[0]
    assert {row["question"] for row in rows} == asked["train"]
    with (tmp_path / "out" / "pairs" / "train.csv").open() as file:
        answers = {row["question"]: row["passage"] for row in csv.DictReader(file) if row["relevant"] == "1"}
    found = {(row["question"], row["passage"]) for row in rows}
    assert len(found) == len(rows) > len(answers)
    assert set(answers.items()) < found
    assert written == counts | {"unlabelled/unlabelled.csv": len(rows)}
