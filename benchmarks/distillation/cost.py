"""What teachers cost a student's epoch: python -m benchmarks.distillation.cost.

The student alone, with cached soft targets, and with its teachers asked online, at 1, 3 and 10 teachers, on digits
ten times over. Each measurement is a process of its own; the ways take turns, so that a slow moment falls on all.
"""

import json
import logging
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

REPEATS = 10  # of the digits, so that an epoch is long enough to be measured
EPOCHS = 12
WARM_UP = 2  # epochs that trace and compile
COUNTS = (1, 3, 10)


def prepare(folder: Path) -> None:
    """Writes the data and, for each number of teachers, their SavedModels and soft targets below `folder`."""
    import tensorflow as tf

    from benchmarks.distillation import experiment as ex

    ex.quiet()
    task = ex.prepare("digits", folder)
    records = list(tf.data.TFRecordDataset(task.train.files, "GZIP").as_numpy_iterator())
    many = ex.Split(folder / "many")
    many.folder.mkdir()
    with tf.io.TFRecordWriter(str(many.folder / "examples.gz"), "GZIP") as writer:
        for record in records * REPEATS:
            writer.write(record)
    teachers = ex.teach(task, task.train, max(COUNTS), seed=1)
    for count in COUNTS:
        ex.write_soft_targets(task, many, teachers[:count], folder / f"soft-{count}")


class Clock(logging.Handler):
    """Notes when epochs end, as stillhouse.modules.progress tells."""

    def __init__(self):
        super().__init__()
        self.ends: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Handles one log record."""
        if hasattr(record, "epoch_done"):
            self.ends.append(time.perf_counter())


def measure(folder: Path, way: str, count: int, builder: str, width: int) -> dict[str, float]:
    """Trains one student and returns the median seconds of an epoch and the peak resident set in MiB."""
    from benchmarks.distillation import experiment as ex
    from stillhouse.modules import progress

    ex.quiet()
    name = "digits"
    settings = ex.load_settings(ex.REPOSITORY / "pipelines" / "examples" / f"{name}.yaml")
    (graph,) = (folder / name / "artifacts" / "Transform" / "transform_graph").iterdir()
    many = ex.Split(folder / "many")
    task = ex.Task(settings, ex.dag_below(settings, folder / settings.name), graph, many, many, many, many)
    changes: dict = {"epochs": EPOCHS, "builder": builder, "hyperparameters": {"width": width}}
    if way != "alone":
        changes["distillation"] = ex.distillation_of(count, 2.0, 0.9)
    if way == "cached":
        changes["soft_targets"] = str(folder / f"soft-{count}" / "targets")
    if way == "online":
        changes["teachers"] = [
            str(folder / f"soft-{max(COUNTS)}" / f"teacher-{number}" / "Format-Serving")
            for number in range(1, count + 1)
        ]
    clock = Clock()
    progress.LOGGER.setLevel(logging.INFO)
    progress.LOGGER.addHandler(clock)
    ex.trained(task, many, ex.config_of(task, settings.student, "student", 1, **changes))
    ends = clock.ends
    epochs = [after - before for before, after in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"epoch": statistics.median(epochs), "peak": peak}


def main(
    rounds: int = 5,
    builder: str = "build_student",
    width: int = 8,
    folder: Path | None = None,
    way: str | None = None,
    count: int = 0,
) -> None:
    """Without a way: prepares, measures every way in turn, prints the table as Markdown.

    The student is that of the settings file, or one of another builder and width; build_teacher and 32 make one of the
    teachers' size.
    """
    if way == "prepare":
        prepare(folder)
        return
    if way:
        print(json.dumps(measure(folder, way, count, builder, width)))
        return
    base = Path(tempfile.mkdtemp())
    try:
        run(base, rounds, builder, width)
    finally:
        shutil.rmtree(base)


def child(base: Path, way: str, count: int = 0, builder: str = "", width: int = 0) -> str:
    """Runs this program in a process of its own and returns its last line."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.distillation.cost",
        "--folder",
        str(base),
        "--way",
        way,
        "--count",
        str(count),
        "--builder",
        builder,
        "--width",
        str(width),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return (done.stdout.strip().splitlines() or [""])[-1]


def run(base: Path, rounds: int, builder: str, width: int) -> None:
    """Measures and prints."""
    child(base, "prepare")
    ways = [("alone", 0)] + [(way, count) for count in COUNTS for way in ("cached", "online")]
    found: dict[tuple[str, int], list[dict]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            found[way].append(json.loads(child(base, *way, builder, width)))
            print(number, way, found[way][-1], file=sys.stderr, flush=True)
    alone = [result["epoch"] for result in found["alone", 0]]
    print("| teachers | epoch of the student | ms, median | ratio to the student alone, median (spread) | peak (MiB) |")
    print("|---|---|---|---|---|")
    for (way, count), results in found.items():
        ratios = [result["epoch"] / base_time for result, base_time in zip(results, alone, strict=True)]
        time_ms = 1000 * statistics.median(result["epoch"] for result in results)
        peak = statistics.median(result["peak"] for result in results)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {count or ''} | {way} | {time_ms:.0f} | {spread} | {peak:.0f} |")


if __name__ == "__main__":
    typer.run(main)
