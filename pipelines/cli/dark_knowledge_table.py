"""Dark knowledge in the terminal."""

import heapq
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

MAX_CLASSES = 12  # whose whole matrix is printed
PAIRS = 5  # most similar ones, for each temperature


def print_dark_knowledge(dark_knowledge: dict[str, Any], console: Console) -> None:
    """Prints, for each temperature, the class-similarity matrix or its largest entries, then the telling examples."""
    classes = dark_knowledge["classes"]
    for entry in dark_knowledge["temperatures"]:
        entropy = entry["entropy"]
        title = (
            f"T = {entry['temperature']:g}: entropy of the soft targets {entropy['mean']:.3f} nats on average "
            f"(median {entropy['p50']:.3f}, 95 % below {entropy['p95']:.3f}, at most {entropy['largest_possible']:.3f})"
        )
        console.print(title, highlight=False, soft_wrap=True)
        if len(classes) <= MAX_CLASSES:
            console.print(_matrix(classes, entry["mean_soft_targets"]))
        for true, other, probability in most_similar(entry["mean_soft_targets"], PAIRS):
            line = f"  {classes[true]} looks like {classes[other]}: {100 * probability:.2f} %"
            console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(
        f"most telling of {dark_knowledge['examples']} examples (right, but nearly something else):", highlight=False
    )
    for example in dark_knowledge["telling"]:
        probabilities = ", ".join(
            f"{name} {100 * probability:.1f} %" for name, probability in example["probabilities"].items()
        )
        line = f"  train example {example['example']}, {example['class']}: {probabilities}"
        console.print(escape(line), highlight=False, soft_wrap=True)


def most_similar(matrix: list[list[float]], count: int) -> list[tuple[int, int, float]]:
    """Returns the `count` largest entries beside the diagonal, largest first: (true class, other class, value)."""
    entries = ((i, j, value) for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j)
    return heapq.nlargest(count, entries, key=lambda entry: entry[2])


def _matrix(classes: list[str], matrix: list[list[float]]) -> Table:
    table = Table(title="mean soft target in % (rows: true class)", title_justify="left", box=None, padding=(0, 1))
    table.add_column("")
    for name in classes:
        table.add_column(escape(name), justify="right")
    for name, row in zip(classes, matrix, strict=True):
        table.add_row(escape(name), *(f"{100 * value:.1f}" for value in row))
    return table
