"""What YAML has beyond plain data, and what PyYAML accepts in silence: one sentence with its line, never a hang."""

import random
import re
import signal
import time

import blobs
import pytest
import yaml

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import load_settings, parse_settings

SETTINGS = yaml.safe_dump(blobs.settings())
LINES = SETTINGS.count("\n")
SECONDS = 20  # for one file, on a machine that does something else too


def refuse(folder, text, overrides=None):
    path = folder / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_settings(path, overrides)
    assert len(str(caught.value)) < 1_000
    return str(caught.value)


@pytest.mark.parametrize("section", ["preprocessing", "student"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2024-13-45", "'2024-13-45' is a date; for a string put it into quotes"),
        ("2024-01-02 10:00:00", "'2024-01-02 10:00:00' is a date; for a string put it into quotes"),
        ("!!int abc", "'abc' is not a valid integer"),
        ("!!int ''", "'' is not a valid integer"),
        ("!!bool maybe", "'maybe' is not a valid boolean"),
        ("9" * 5_000, "is a number of more than 100 characters"),
        ("1:" * 50_000 + "1", "is a number of more than 100 characters"),
        ("99999999999999999999", "is too large; expected an integer of at most 64 bits"),
        (".nan", "'.nan' is not a finite number"),
        ("1e999", "'1e999' is not a finite number"),
        ("[" * 5_000, "nested more than 64 levels deep"),
        ("[" * 5_000 + "]" * 5_000, "nested more than 64 levels deep"),
        ("!!binary aGk=", "'aGk=' is binary data; for a string put it into quotes"),
        ("!!set {a, b}", "found a set; expected a mapping, a list or a value"),
        ("!local b", "found the tag !local; expected a mapping, a list or a value"),
        ("&a [*a]", "an alias stands within the value that it names"),
        ("&a {<<: *a}", "an alias stands within the value that it names"),
        ("{<<: [3]}", "<< merges mappings; found '3'"),
        ("{1: a}", "the key '1' is no string; put it into quotes"),
        ("{[a]: b}", "the key a list is no string; put it into quotes"),
        ("{a: 1, a: 2}", "the key 'a' stands in line {line} already; remove one"),
        (r'"\ud800"', r"'\ud800' has a character that no text has"),
        (r'"\0"', r"'\x00' has a character that no text has"),
        (r'"\UFFFFFFFF"', "not valid YAML: "),
        ("\x07", r"not valid YAML: the character '\x07' is not allowed"),
        ("*nowhere", "not valid YAML: found undefined alias 'nowhere'"),
    ],
)
def test_what_is_no_plain_data_is_a_sentence_with_its_line(tmp_path, section, value, problem):
    text = SETTINGS if section == "preprocessing" else re.sub("(?m)^student:\n(  .*\n)*", "", SETTINGS)
    below = "x" if section == "preprocessing" else "hyperparameters"
    line = text.count("\n") + 2
    started = time.monotonic()
    message = refuse(tmp_path, f"{text}{section}:\n  {below}: {value}\n")
    assert message.startswith(f"{tmp_path}/s.yaml, line {line}: ")
    assert problem.replace("{line}", str(line)) in message
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("level", ["[{aliases}]", "{{<<: [{aliases}]}}"])
def test_aliases_that_multiply_end_in_a_sentence(tmp_path, level):
    first = "[x, x]" if level.startswith("[") else "{k: [x, x]}"
    lines = [f"  a0: &a0 {first}"]
    for number in range(1, 40):
        aliases = ", ".join([f"*a{number - 1}"] * 9)
        lines.append(f"  a{number}: &a{number} {level.format(aliases=aliases)}")
    text = SETTINGS + "preprocessing:\n" + "\n".join(lines)
    assert "aliases multiply to more than 20,000 keys and values" in refuse(tmp_path, text)


def test_aliases_that_nest_end_in_a_sentence(tmp_path):
    lines = ["  a0: &a0 [x]", *(f"  a{number}: &a{number} [*a{number - 1}]" for number in range(1, 2_000))]
    text = SETTINGS + "preprocessing:\n" + "\n".join(lines)
    assert "aliases nest to more than 64 levels" in refuse(tmp_path, text)


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path):
    message = refuse(tmp_path, "name: trees\nstudent: {epochs: 1}\nteachers: []\nstudent: {epochs: 4}\n")
    assert message == f"{tmp_path}/s.yaml, line 4: the key 'student' stands in line 2 already; remove one"


def test_a_file_too_large_for_settings_is_a_sentence(tmp_path):
    assert "found more than 1,000,000 characters" in refuse(tmp_path, SETTINGS + "#" * 1_000_000)
    assert "more than 20,000 keys and values" in refuse(tmp_path, "- 1\n" * 20_001)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teachers.².epochs=2", "teachers.² does not exist in the settings"),
        (f"teachers.{'9' * 5_000}.epochs=2", " does not exist in the settings"),
        ("a." * 5_000 + "b=1", "found 5000 keys; expected at most 64"),
        ("student.epochs=2024-13-45", "the value: '2024-13-45' is a date"),
        ("student.hyperparameters=&a [*a]", "an alias stands within the value that it names"),
        ("student.\udcff=1", "not valid UTF-8"),
    ],
)
def test_an_override_that_is_no_plain_data_is_a_sentence(tmp_path, override, message):
    found = refuse(tmp_path, SETTINGS, [override])
    assert found.startswith("--set ")
    assert message in found


def test_merges_and_aliases_give_values_of_their_own(tmp_path):
    path = tmp_path / "s.yaml"
    text = re.sub(
        "(?m)^teachers:\n(- .*\n|  .*\n)*", "teachers: [&t {epochs: 3, seed: 2}, *t, {<<: *t, seed: 9}]\n", SETTINGS
    )
    path.write_text(text)
    teachers = load_settings(path, ["teachers.0.epochs=5"]).teachers
    assert [(teacher.epochs, teacher.seed) for teacher in teachers] == [(5, 2), (3, 2), (3, 9)]


def test_fractions_as_splits_are_told_that_weights_are_integers():
    with pytest.raises(UserError) as caught:
        parse_settings(
            blobs.settings(data={"path": "d", "label": "y", "splits": {"train": 0.8, "eval": 0.2}}), "s.yaml"
        )
    first, second = str(caught.value).splitlines()
    assert first.startswith("s.yaml: data.splits.train: found 0.8; expected a valid integer or a valid string (Splits ")
    assert "integer weights" in first
    assert second.startswith("s.yaml: data.splits.eval: found 0.2; expected")


PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        ", ",
        "&a ",
        "*a",
        "<<: *a",
        "!!int ",
        "!!binary ",
        "!!python/none ",
        "? ",
        "| ",
        ">-\n",
    ),
    *(
        "2024-13-45",
        ".inf",
        "-.nan",
        "0x1G",
        "0o9",
        "1_000",
        "1:99",
        "~",
        "yes",
        "=",
        "²",
        "\0",
        "\x1b[31m",
        "\u202e",
        "\x85",
    ),
    *(
        "'",
        '"',
        '"\\x',
        '"\\ud800"',
        "%YAML 9.9\n",
        "---\n",
        "...\n",
        "#",
        "\t",
        "\r",
        "\n",
        "9" * 400,
        "[" * 100,
        "💧",
        "",
    ),
]


def mutate(text: str, randomness: random.Random) -> str:
    """Returns the text with one to four changes: a piece put in, a line doubled, moved or lost, a value replaced."""
    for _ in range(randomness.randint(1, 4)):
        lines = text.split("\n")
        at, other = randomness.randrange(len(lines)), randomness.randrange(len(lines))
        column = randomness.randint(0, len(lines[at]))
        change = randomness.randrange(6)
        if change == 0:
            lines[at] = lines[at][:column] + randomness.choice(PIECES) + lines[at][column:]
        elif change == 1:
            lines[at] = re.sub(r": .*|:$", lambda match: f": {randomness.choice(PIECES)}", lines[at])
        elif change == 2:
            lines.insert(other, lines[at])
        elif change == 3:
            lines[at] = lines[at][:column]
        elif change == 4:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = " " * randomness.randint(0, 4) + lines[at].strip()
        text = "\n".join(lines)
    return text


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 1_600), marks=pytest.mark.soak)], ids=["some", "many"]
)
def test_mutated_settings_are_valid_or_a_sentence_that_names_a_line_or_a_key(tmp_path, seeds, record_property):
    record_property("fault", "mutated settings files")
    record_property("tried", len(seeds))
    path = tmp_path / "s.yaml"

    def too_late(*_):
        raise AssertionError("no answer in time")

    before = signal.signal(signal.SIGALRM, too_late)
    refused = 0
    try:
        for seed in seeds:
            text = mutate(SETTINGS, random.Random(seed))
            path.write_text(text, encoding="utf-8")
            signal.alarm(SECONDS)
            try:
                settings = load_settings(path)
                assert parse_settings(yaml.safe_load(settings.model_dump_json(by_alias=True)), "x") == settings
            except UserError as error:
                refused += 1
                for line in str(error).splitlines():
                    assert re.match(rf"{re.escape(str(path))}(, line \d+: |: [\w.\[\]-]+)", line), (seed, line)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {text}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert len(seeds) / 2 < refused < len(seeds)
