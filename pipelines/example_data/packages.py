"""Texts of which the package is to be told: docstrings of installed packages, few of them labelled.

The packages' names, and words that give a package away, are taken out of all texts; near-duplicates are dropped.
Sources are parsed, not imported.
"""

import csv
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.example_data.docstrings import documented, first_words, sources_of_packages

# Each has some 700 different docstrings or more in every lane of requirements/.
PACKAGES = (
    "apache-beam",
    "fonttools",
    "google-cloud-bigtable",
    "ipython",
    "kubernetes",
    "matplotlib",
    "nltk",
    "numpy",
    "pandas",
    "pymongo",
    "scikit-learn",
    "scipy",
    "tensorflow",
)
# A word with one of these in it is taken out, whatever the package.
NAMES = re.compile(
    r"apache|beam|font_?tools|google|bigtable|ipython|kubernetes|k8s|matplotlib|pyplot|nltk|numpy|pandas|mongo|"
    r"scikit|sklearn|scipy|tensor_?flow|keras|https?:|www\.|\.(com|org|io)\b",
    re.IGNORECASE,
)
# A word with one of these between other characters than letters is taken out: tf.constant, >>> np.ones(3).
SHORT_NAMES = re.compile(r"(?<![a-z])(tf|np|pd|plt|mpl|sp|bt|gcp|pb2?)(?![a-z])|>>>|(in|out)\s?\[\d", re.IGNORECASE)

MIN_WORDS, MAX_WORDS = 12, 60  # of a text, names taken out
PER_PACKAGE = 1000  # texts; files are read in random order until there are as many
EVAL, LABELLED, VALIDATION = 160, 10, 10  # texts of each package; the rest is unlabelled
SPLIT_SEED = 2  # of the eval split, which is the same whatever is labelled


def masked(text: str) -> str:
    """Returns the first MAX_WORDS words of a docstring without those that name a package."""
    words = [word for word in text.split() if not NAMES.search(word) and not SHORT_NAMES.search(word)]
    return " ".join(words[:MAX_WORDS])


def collect(sources: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """Returns {package: texts} of the sources, near-duplicates once.

    A text is a near-duplicate if its first 12 words, or its last 12, are those of another one, of whichever package.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    shuffled = random.Random(SPLIT_SEED).sample(ordered := list(sources), len(ordered))
    for package, path in shuffled:
        if len(texts[package]) >= PER_PACKAGE:
            continue
        for text in _texts_in(path):
            reverse = " ".join(reversed(text.split()))
            keys = {first_words(text, MIN_WORDS), first_words(reverse, MIN_WORDS)}
            if not keys & seen:
                texts[package].append(text)
            seen |= keys
    return dict(texts)


def _texts_in(path: Path) -> Iterator[str]:
    try:
        docstrings = list(documented(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError, ValueError, FileNotFoundError):  # templates, other languages' sources
        return
    for _, docstring in docstrings:
        text = masked(docstring)
        if text.isprintable() and len(re.findall(r"[a-z]{2,}", text.lower())) >= MIN_WORDS:
            yield text


def split(texts: dict[str, list[str]], seed: int = 1) -> dict[str, list[tuple[str, str]]]:
    """Returns {split: (text, package) in random order} of the splits labelled, validation, eval and unlabelled.

    Args:
      texts: {package: its texts}.
      seed: of what is labelled and what is for validation; the eval split does not depend on it.

    Raises:
      UserError: a package is not installed, or has too few texts.
    """
    splits: dict[str, list[tuple[str, str]]] = {"labelled": [], "validation": [], "eval": [], "unlabelled": []}
    required = EVAL + LABELLED + VALIDATION
    for package in PACKAGES:
        own = texts.get(package, [])
        if len(own) <= required:
            raise UserError(
                f"{package}: found {len(own)} docstrings; expected more than {required}; install requirements/"
            )
        order = random.Random(SPLIT_SEED).sample(own, min(len(own), PER_PACKAGE))
        pool = random.Random(seed).sample(order[EVAL:], len(order) - EVAL)
        parts = (pool[:LABELLED], pool[LABELLED : LABELLED + VALIDATION], order[:EVAL], pool[LABELLED + VALIDATION :])
        for rows, part in zip(splits.values(), parts, strict=True):
            rows += [(text, package) for text in part]
    for rows in splits.values():
        random.Random(seed).shuffle(rows)
    return splits


def write(folder: Path, seed: int = 1) -> dict[str, int]:
    """Writes labelled, validation and eval CSV files below texts/ and unlabelled/unlabelled.csv; returns their rows."""
    return write_splits(folder, split(collect(sources_of_packages(PACKAGES)), seed))


def write_splits(folder: Path, splits: dict[str, list[tuple[str, str]]]) -> dict[str, int]:
    """Writes the files of `write`: columns `text` and `package`; those without labels have only the first."""
    written = {}
    for name, rows in splits.items():
        path = f"unlabelled/{name}.csv" if name == "unlabelled" else f"texts/{name}.csv"
        columns = ("text",) if name == "unlabelled" else ("text", "package")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(row[: len(columns)] for row in rows)
        written[path] = len(rows)
    return written
