"""Does depth pay on questions and passages? python -m benchmarks.text_recipes.depth --questions 400 --epochs 8.

Encoders of several depths and widths, trained on hard labels without pre-training and scored on validation packages of
the train split: what a student could gain from a larger teacher.
"""

import tempfile
import time
from pathlib import Path

import typer

from benchmarks.distillation.experiment import quiet
from benchmarks.text_recipes import experiment as ex

SHAPES = ((6, 64), (3, 64), (1, 64), (1, 16))  # layers, width


def main(questions: int | None = None, epochs: int = 3, seeds: int = 3) -> None:
    """Trains networks of each shape and prints the table."""
    quiet()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        bench = ex.prepare("distilbert", Path(folder), validation=True, questions=questions)
        student = bench.settings.student
        rows = {}
        for layers, width in SHAPES:
            shape = student.hyperparameters | {"layers": layers, "width": width}
            of = student.model_copy(update={"start": None, "epochs": epochs, "hyperparameters": shape})
            name = f"{layers} × {width}"
            rows[name] = [
                bench.score(bench.train(f"{layers}-{width}", of, "baseline", seed)) for seed in range(1, seeds + 1)
            ]
        ex.print_rows(bench, rows)
    print(f"\n{(time.process_time() - began) / 60:.0f} minutes of CPU time")


if __name__ == "__main__":
    typer.run(main)
