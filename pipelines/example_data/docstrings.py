"""Questions and passages from the docstrings of installed packages, for models that tell whether a passage answers.

A docstring's summary line becomes a question, the rest of it the passage that answers it. Sources are parsed, not
imported.
"""

import ast
import csv
import json
import random
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

NOT_SOURCES = ("pip", "setuptools", "stillhouse", "wheel")  # of questions: what is installed is not what is locked
STANDARD_LIBRARY = "python"
# Packages that grew from one another have many docstrings in common, or nearly so; they are of one split.
FAMILIES = {"keras": "tensorflow", "tf-keras": "tensorflow", "tensorflow-io-gcs-filesystem": "tensorflow"}
LEFT_OUT = re.compile(r"(^|/)(tests?|testing|idlelib|lib2to3|site-packages|__pycache__)(/|$)|_test\.py$|_pb2")

MIN_QUESTION_WORDS, MAX_QUESTION_WORDS = 4, 25
MIN_PASSAGE_WORDS, MAX_PASSAGE_WORDS = 15, 80
EVAL_SHARE = 0.2  # of the questions, at the least
RANDOM_NEGATIVES = 2
UNLABELLED_PER_QUESTION = 10
SAMPLE = 8_000  # questions of the small set
HARD_AT_A_TIME = 512  # questions whose similarities to all passages are in memory
COLUMNS = ("question_id", "question", "passage", "candidate", "relevant", "package")
# A summary begins with a verb; in English docstrings these are most of them.
VERBS = """
accept add allow apply assert build calculate call cast check clear close collect combine compare compile compute
concatenate configure construct contain convert copy count create decode decorate define delete describe determine
disable display draw emit enable encode ensure estimate evaluate execute expand export extract fetch fill filter find
fit flatten format generate get give handle hold identify implement import infer initialize insert inspect invoke
iterate join limit list load locate log look make manage map mark match measure merge modify move normalize open pad
parse perform plot pop predict prepare print process produce provide push put raise read receive record reduce
register release remove rename render replace represent reset reshape resize resolve restore retrieve return reverse
rotate round run sample save scale scan search select send serialize set show shuffle sort specify split start stop
store strip test track transform translate trim truncate try unpack unregister update upload use validate verify wait
wrap write yield
"""


@dataclass(frozen=True)
class Docstring:
    """A question and its answer."""

    package: str
    module: str
    question: str
    passage: str


def third_person(verb: str) -> str:
    """Returns "returns" of "return"."""
    if verb.endswith(("s", "x", "z", "ch", "sh")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


FORMS = {form: third_person(verb) for verb in VERBS.split() for form in (verb, third_person(verb))}


def question_of(summary: str, kind: str) -> str:
    """Returns the question that a summary line answers.

    "Return the sum." of a function makes "Which function returns the sum?".
    """
    text = summary.rstrip(".!:; ")
    first, _, rest = text.partition(" ")
    if first.lower() in FORMS:
        return f"Which {kind} {FORMS[first.lower()]} {rest}?"
    small = first if first.isupper() or not first[1:].islower() else first.lower()
    return f"Which {kind} is for {small} {rest}?"


def documented(source: str) -> Iterator[tuple[ast.AST, str]]:
    """Yields the functions and classes of a source file that have a docstring in ASCII, with the docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text and text.isascii():
                yield node, text


def docstrings_in(source: str, package: str, module: str) -> Iterator[Docstring]:
    """Yields what a source file's functions and classes say about themselves, where it is long enough to ask about."""
    for node, text in documented(source):
        summary, _, rest = text.partition("\n\n")
        summary, passage = " ".join(summary.split()), " ".join(rest.split()[:MAX_PASSAGE_WORDS])
        question_words, passage_words = len(summary.split()), len(passage.split())
        if not (summary + passage).isprintable():
            continue
        if MIN_QUESTION_WORDS <= question_words <= MAX_QUESTION_WORDS and passage_words >= MIN_PASSAGE_WORDS:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield Docstring(package, module, question_of(summary, kind), passage)


def installed_sources() -> Iterator[tuple[str, Path]]:
    """Yields (package, file) of the installed packages and the standard library, in an order that does not change."""
    standard = Path(sysconfig.get_path("stdlib"))
    for path in sorted(standard.rglob("*.py")):
        if not LEFT_OUT.search(path.relative_to(standard).as_posix()):
            yield STANDARD_LIBRARY, path
    yield from sources_of_packages()


def sources_of_packages(names: Iterable[str] | None = None) -> Iterator[tuple[str, Path]]:
    """Yields (package, file) of installed packages in an order that does not change.

    Args:
      names: of the packages, normalised; None: all but NOT_SOURCES. Names that are not installed are skipped.
    """
    installed = {
        re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower(): distribution
        for distribution in metadata.distributions()
    }
    for name in sorted(set(installed) - set(NOT_SOURCES) if names is None else set(installed) & set(names)):
        for file in sorted(installed[name].files or [], key=str):
            if file.suffix == ".py" and not LEFT_OUT.search(file.as_posix()):
                yield name, Path(file.locate())


def collect(sources: Iterable[tuple[str, Path]]) -> list[Docstring]:
    """Returns the docstrings of the sources, each question and each beginning of a passage once."""
    docstrings: list[Docstring] = []
    seen: set[str] = set()
    for package, path in sources:
        try:
            file_docstrings = list(docstrings_in(path.read_text(encoding="utf-8"), package, str(path)))
        except (SyntaxError, UnicodeDecodeError, ValueError, FileNotFoundError):  # templates, other languages' sources
            continue
        for docstring in file_docstrings:
            keys = {first_words(docstring.question, 99), first_words(docstring.passage, 12)}
            if not keys & seen:
                seen |= keys
                docstrings.append(docstring)
    return docstrings


def first_words(text: str, words: int) -> str:
    """Returns the first words in lower case, without punctuation: equal for near-duplicates."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower())[:words])


def family_of(package: str) -> str:
    """Returns the name of the packages that it belongs with."""
    return FAMILIES.get(package, package)


def split_of_packages(docstrings: list[Docstring], seed: int = 1) -> dict[str, str]:
    """Returns {package: "train" or "eval"}: whole families, drawn until the eval split has EVAL_SHARE of the questions.

    The largest family and the standard library are always of the train split.
    """
    counts: dict[str, int] = defaultdict(int)
    for docstring in docstrings:
        counts[family_of(docstring.package)] += 1
    largest = max(counts, key=counts.__getitem__)
    drawn = sorted(set(counts) - {largest, STANDARD_LIBRARY})
    random.Random(seed).shuffle(drawn)
    eval_count = EVAL_SHARE * len(docstrings)
    eval_families: set[str] = set()
    for family in drawn:
        if sum(counts[name] for name in eval_families) >= eval_count:
            break
        eval_families.add(family)
    packages = {docstring.package for docstring in docstrings}
    return {package: "eval" if family_of(package) in eval_families else "train" for package in sorted(packages)}


def similar(docstrings: list[Docstring], count: int) -> list[list[int]]:
    """Returns, for each question, the passages of others that share the most telling words with it, nearest first."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, dtype=np.float32)
    passages = vectorizer.fit_transform([docstring.passage for docstring in docstrings])
    questions = vectorizer.transform([docstring.question for docstring in docstrings])
    neighbours = []
    for begin in range(0, len(docstrings), HARD_AT_A_TIME):
        likeness = (questions[begin : begin + HARD_AT_A_TIME] @ passages.T).toarray()
        for row, own in enumerate(range(begin, begin + len(likeness))):
            likeness[row, own] = -1.0
        nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        neighbours += nearest.tolist()
    return neighbours


def candidates(docstrings: list[Docstring], nearest: list[list[int]], seed: int = 1) -> list[dict[str, object]]:
    """Returns the rows of labelled pairs: for each question its own passage, and ones that do not answer it.

    Those are one of the same module (where there is another), the nearest by its words, and random ones.
    """
    chance = random.Random(seed)
    of_module: dict[str, list[int]] = defaultdict(list)
    for number, docstring in enumerate(docstrings):
        of_module[docstring.module].append(number)
    rows = []
    for number, docstring in enumerate(docstrings):
        kinds = {number: "own"}
        beside = [candidate for candidate in of_module[docstring.module] if candidate != number]
        if beside:
            kinds[chance.choice(beside)] = "same_module"
        kinds.setdefault(next((candidate for candidate in nearest[number] if candidate not in kinds), number), "hard")
        candidate_count = min(len(kinds) + RANDOM_NEGATIVES, len(docstrings))
        while len(kinds) < candidate_count:
            kinds.setdefault(chance.randrange(len(docstrings)), "random")
        rows += [
            _row(number, docstring, docstrings[candidate].passage, kind, int(candidate == number))
            for candidate, kind in kinds.items()
        ]
    return rows


def _row(number: int, docstring: Docstring, passage: str, kind: str, relevant: int | str) -> dict[str, object]:
    values = (number, docstring.question, passage, kind, relevant, docstring.package)
    return dict(zip(COLUMNS, values, strict=True))


def _write(path: Path, rows: Iterable[dict[str, object]], columns: Iterable[str] = COLUMNS) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        count = 0
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def write_sample(folder: Path) -> dict[str, int]:
    """Writes what `write` does, of SAMPLE questions."""
    return write(folder, SAMPLE)


def write(folder: Path, max_questions: int | None = None, seed: int = 1) -> dict[str, int]:
    """Writes pairs/train.csv, pairs/eval.csv, unlabelled/unlabelled.csv and provenance.json; returns their rows.

    Unlabelled pairs are questions of the train split with what a search could return: passages near by their words, and
    their own among them, in an order that does not tell which it is.

    Args:
      folder: to write to.
      max_questions: number of questions, drawn at random; None: all there are.
      seed: of the drawing.
    """
    everything = collect(installed_sources())
    split = split_of_packages(everything)
    if max_questions is not None and max_questions < len(everything):
        everything = random.Random(seed).sample(everything, max_questions)
    written = {}
    for name in ("train", "eval"):
        own = [docstring for docstring in everything if split[docstring.package] == name]
        nearest = similar(own, UNLABELLED_PER_QUESTION)
        written[f"pairs/{name}.csv"] = _write(folder / "pairs" / f"{name}.csv", candidates(own, nearest))
        if name == "train":
            unlabelled = (
                _row(number, docstring, own[neighbour].passage, "unknown", "")
                for number, docstring in enumerate(own)
                for neighbour in sorted([number, *nearest[number][1:]])  # the first one is a labelled pair
            )
            columns = [column for column in COLUMNS if column != "relevant"]
            written["unlabelled/unlabelled.csv"] = _write(folder / "unlabelled" / "unlabelled.csv", unlabelled, columns)
    (folder / "provenance.json").write_text(json.dumps(provenance(everything, split), indent=1))
    return written


def provenance(docstrings: list[Docstring], split: dict[str, str]) -> list[dict[str, object]]:
    """Returns, for each package, its version, licence, split and number of questions."""
    counts: dict[str, int] = defaultdict(int)
    for docstring in docstrings:
        counts[docstring.package] += 1
    rows = []
    for name, count in sorted(counts.items()):
        if name == STANDARD_LIBRARY:
            version, licence = sysconfig.get_python_version(), "PSF-2.0"
        else:
            fields = metadata.metadata(name)
            version = fields["Version"]
            classifiers = [
                classifier for classifier in fields.get_all("Classifier", []) if classifier.startswith("License ::")
            ]
            named = ", ".join(classifier.rpartition("::")[2].strip() for classifier in classifiers)
            licence = fields["License-Expression"] or named or next(iter((fields["License"] or "").splitlines()), "")
        rows.append({"package": name, "version": version, "licence": licence, "split": split[name], "questions": count})
    return rows
