"""DistilBERT's tables, on questions and passages: python -m benchmarks.text_recipes.distilbert --seeds 3.

Per seed: a teacher pre-trained and fine-tuned; DistilBERT (three losses, every other layer of the teacher to start
from), fine-tuned on hard labels, and with the fine-tuned teacher's soft targets; the ablations of the paper's table 4;
and the twin that has no pre-training at all. --validation scores on packages of the train split.
"""

import tempfile
import time
from pathlib import Path

import typer

from benchmarks.distillation.experiment import quiet
from benchmarks.text_recipes import experiment as ex

# {what is left out: changes to what the small language model learns}; weights of the others as they are.
ABLATIONS = {
    "without soft targets": {"alpha": 0.0},
    "without cosine of hidden states": {"hints": []},
    "without masked language model": {"alpha": 1.0},
    "with random initial weights": {},
}


def main(
    seeds: int = 3,
    first: int = 1,
    validation: bool = False,
    ablations: bool = True,
    questions: int | None = None,
    setting: list[str] | None = None,
    output: Path | None = None,
) -> None:
    """Trains and prints the tables; --setting KEY=VALUE changes the settings file's, as --set does."""
    quiet()
    rows: dict[str, list[dict[str, float]]] = {}
    began = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        bench = ex.prepare("distilbert", Path(folder), validation, questions, setting)
        settings = bench.settings
        student = settings.student

        def note(name: str, *models: Path) -> None:
            rows.setdefault(name, []).append(bench.score(*models))
            print(seed, name, {key: round(of, 4) for key, of in rows[name][-1].items()}, flush=True)

        for seed in range(first, first + seeds):
            large = bench.pretrain("large", seed)
            teacher = bench.train("teacher", settings.teachers[0], "teacher", seed, large)
            note("BERT (teacher)", teacher)
            small = bench.pretrain("small", seed, large, large)
            tuned = bench.train("student", student, "student", seed, small)
            note("DistilBERT", tuned)
            learning = student.distillation.model_dump(
                include={"temperature", "alpha", "hints", "head_per_teacher"}
            ) | {"objective": settings.objective, "ensemble": {"weights": [1.0]}}
            soft = {"distillation": learning, "soft_targets": bench.soft_targets([teacher])}
            note("DistilBERT (D)", bench.train("student (D)", student, "student", seed, small, **soft))
            alone = student.model_copy(update={"start": None})
            note("student without pre-training", bench.train("alone", alone, "baseline", seed))
            for name, learning in ABLATIONS.items() if ablations else ():
                start = None if name == "with random initial weights" else large
                less = bench.pretrain("small", seed, start, large, learning)
                note(name, bench.train(f"student {name}", student, "student", seed, less))
        ex.finish(bench, rows, {"teacher": teacher, "DistilBERT": tuned}, began, output)


if __name__ == "__main__":
    typer.run(main)
