"""Each part of an input pipeline by itself, on an artificial data set, beside what perfect overlap would take.

  python -W ignore -m benchmarks.ingestion.course [--rounds 3]

The data set sleeps instead of working: 30 ms to open a file, 15 ms to read an element, 30 ms to map one (vectorised: a
batch of them), 10 ms for a training step on an element; two files of ten elements, five epochs. So the times say what
overlaps and what waits, on any machine. Prints the table as Markdown, and draws when what happened in the first two
epochs of each variant, benchmarks/ingestion/timelines/VARIANT.svg.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf
import typer

OPEN, READ, MAP, STEP = 0.030, 0.015, 0.030, 0.010  # seconds
FILES, ELEMENTS, EPOCHS = 2, 10, 5
PARALLEL = 2
BATCH = 10  # of the vectorised map
FOLDER = Path(__file__).parent / "timelines"
ROWS = ("open", "read", "map", "step")
COLOURS = dict(zip(ROWS, ("#4c72b0", "#55a868", "#dd8452", "#c44e52"), strict=True))
DRAWN_EPOCHS = 2


class Events:
    """When something was done: (what, begin, end), and when epochs ended; seconds from the beginning."""

    def __init__(self):
        self.found: list[tuple[str, float, float]] = []
        self.epoch_ends: list[float] = []
        self._lock = threading.Lock()
        self._began = time.perf_counter()

    def restart(self) -> None:
        """Sets the clock to zero."""
        self._began = time.perf_counter()

    def now(self) -> float:
        """Returns the seconds from the beginning."""
        return time.perf_counter() - self._began

    def sleep(self, what: str, seconds: float) -> None:
        """Does `what` for so long."""
        began = self.now()
        time.sleep(seconds)
        with self._lock:
            self.found.append((what, began, self.now()))


def elements_of(file: tf.Tensor, events: Events) -> tf.data.Dataset:
    """Returns the elements of a file, int64 scalars, opened with the first and read one after the other."""

    def read(number, file):
        if number == 0:
            events.sleep("open", OPEN)
        events.sleep("read", READ)
        return np.int64(file * ELEMENTS + number)

    def element(number):
        return tf.ensure_shape(tf.numpy_function(read, [number, file], tf.int64), [])

    return tf.data.Dataset.range(ELEMENTS).map(element)


def mapped(events: Events) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the map function, which takes as long for a batch as for an element."""

    def work(elements):
        events.sleep("map", MAP)
        return elements

    def function(elements):
        return tf.ensure_shape(tf.numpy_function(work, [elements], tf.int64), elements.shape)

    return function


@dataclass(frozen=True)
class Variant:
    """An input pipeline, and the seconds that it would take if all that can overlap did perfectly."""

    name: str
    build: Callable[[Events, str], tf.data.Dataset]  # the events, and a folder for caches
    expected: float
    why: str


def sequential(events: Events) -> tf.data.Dataset:
    """Returns the elements of one file after the other."""
    return tf.data.Dataset.range(FILES).flat_map(lambda file: elements_of(file, events))


def interleaved(events: Events) -> tf.data.Dataset:
    """Returns the elements of PARALLEL files at a time."""
    return tf.data.Dataset.range(FILES).interleave(
        lambda file: elements_of(file, events), cycle_length=PARALLEL, num_parallel_calls=PARALLEL
    )


def together(events: Events, folder: str) -> tf.data.Dataset:
    """Returns batches with all that helps."""
    batches = interleaved(events).batch(BATCH).map(mapped(events), PARALLEL)
    return batches.cache().prefetch(tf.data.AUTOTUNE)


ALL = FILES * ELEMENTS
OPENS = FILES * OPEN
VARIANTS = (
    Variant(
        "naive",
        lambda events, folder: sequential(events).map(mapped(events)),
        EPOCHS * (OPENS + ALL * (READ + MAP + STEP)),
        "E (F open + N (read + map + step))",
    ),
    Variant(
        "prefetch",
        lambda events, folder: sequential(events).map(mapped(events)).prefetch(1),
        EPOCHS * (OPENS + ALL * max(READ + MAP, STEP) + STEP),
        "E (F open + N max(read + map, step) + step)",
    ),
    Variant(
        "parallel interleave, 2",
        lambda events, folder: interleaved(events).map(mapped(events)),
        EPOCHS * (OPEN + READ + ALL * max(READ / PARALLEL, MAP + STEP)),
        "E (open + read + N max(read / 2, map + step))",
    ),
    Variant(
        "parallel map, 2",
        lambda events, folder: sequential(events).map(mapped(events), PARALLEL),
        EPOCHS * (OPENS + READ + ALL * max(READ, MAP / PARALLEL, STEP) + MAP + STEP - max(READ, MAP / PARALLEL, STEP)),
        "E (F open + read + (N - 1) max(read, map / 2, step) + map + step)",
    ),
    Variant(
        "cache in memory",
        lambda events, folder: sequential(events).map(mapped(events)).cache(),
        OPENS + ALL * (READ + MAP + STEP) + (EPOCHS - 1) * ALL * STEP,
        "F open + N (read + map + step) + (E - 1) N step",
    ),
    Variant(
        "cache on disk",
        lambda events, folder: sequential(events).map(mapped(events)).cache(f"{folder}/cache"),
        OPENS + ALL * (READ + MAP + STEP) + (EPOCHS - 1) * ALL * STEP,
        "F open + N (read + map + step) + (E - 1) N step",
    ),
    Variant(
        "vectorised map",
        lambda events, folder: sequential(events).batch(BATCH).map(mapped(events)),
        EPOCHS * (OPENS + ALL * (READ + STEP) + ALL / BATCH * MAP),
        "E (F open + N (read + step) + N / B map)",
    ),
    Variant(
        "all together",
        together,
        OPEN + BATCH / PARALLEL * READ + MAP + EPOCHS * ALL * STEP,
        "open + B / 2 read + map + E N step",
    ),
)


def run(variant: Variant) -> tuple[float, Events]:
    """Trains for EPOCHS and returns the seconds and what happened."""
    with tempfile.TemporaryDirectory() as folder:
        events = Events()
        options = tf.data.Options()
        # Of itself, tf.data puts a prefetch at the end of every pipeline.
        options.experimental_optimization.inject_prefetch = False
        dataset = variant.build(events, folder).with_options(options)
        events.restart()  # the graph has been built
        for _ in range(EPOCHS):
            for elements in dataset:
                events.sleep("step", STEP * int(tf.size(elements)))
            events.epoch_ends.append(events.now())
        return events.now(), events


def draw(variant: Variant, events: Events, path: Path) -> None:
    """Draws the first epochs: a row for each kind of work, above each other where they overlap."""
    from matplotlib import pyplot

    end = events.epoch_ends[DRAWN_EPOCHS - 1]
    figure, axes = pyplot.subplots(figsize=(9, 2.4), layout="constrained")
    for row, what in enumerate(ROWS):
        spans = [(begin, finish - begin) for kind, begin, finish in events.found if kind == what and begin < end]
        axes.broken_barh(spans, (row - 0.4, 0.8), facecolors=COLOURS[what], alpha=0.6, edgecolor="white", linewidth=0.5)
    for number, finish in enumerate(events.epoch_ends[:DRAWN_EPOCHS], start=1):
        axes.axvline(finish, color="#444444", linewidth=0.8)
        place = {"xy": (finish, 1.02), "xycoords": ("data", "axes fraction")}
        axes.annotate(f"epoch {number} ends ", **place, ha="right", va="bottom", fontsize=8, color="#444444")
    axes.set_yticks(range(len(ROWS)), ROWS)
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.01)
    axes.set_xlabel("seconds")
    axes.set_title(variant.name, fontsize=10, loc="left")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(rounds: int = 3) -> None:
    """Runs all variants in turn, prints the table and draws the timelines of the last round."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "stillhouse"
    FOLDER.mkdir(exist_ok=True)
    found: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    run(VARIANTS[0])  # TensorFlow starts its threads
    for number in range(rounds):
        for variant in VARIANTS:
            seconds, events = run(variant)
            found[variant.name].append(seconds)
            if number == rounds - 1:
                draw(variant, events, FOLDER / f"{variant.name.replace(', ', '-').replace(' ', '-')}.svg")
    print("| variant | seconds, median (spread) | perfect overlap | measured / perfect | times naive |")
    print("|---|---|---|---|---|")
    naive = statistics.median(found["naive"])
    for variant in VARIANTS:
        times = found[variant.name]
        median = statistics.median(times)
        print(
            f"| {variant.name} | {median:.2f} ({min(times):.2f} to {max(times):.2f}) | {variant.expected:.2f} = "
            f"{variant.why} | {median / variant.expected:.2f} | {naive / median:.1f} |"
        )


if __name__ == "__main__":
    typer.run(main)
