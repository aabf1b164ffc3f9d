"""TMKD's table, the impact of its two stages: python -m benchmarks.text_recipes.tmkd --seeds 3.

Per seed: three teachers and their ensemble, and students of half the layers: on hard labels alone, from one teacher
(1-o-1), from the teachers' mean (1-avg-o-1), TMKD without its first stage, TMKD with one teacher, and TMKD.
--validation scores on packages of the train split.
"""

import tempfile
import time
from pathlib import Path

import typer

from benchmarks.distillation.experiment import quiet
from benchmarks.text_recipes import experiment as ex

SOFT_TARGETS_ALONE = 1.0  # as alpha


def main(
    seeds: int = 3,
    first: int = 1,
    validation: bool = False,
    questions: int | None = None,
    setting: list[str] | None = None,
    output: Path | None = None,
) -> None:
    """Trains and prints the table; --setting KEY=VALUE changes the settings file's, as --set does."""
    quiet()
    rows: dict[str, list[dict[str, float]]] = {}
    began = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        bench = ex.prepare("tmkd", Path(folder), validation, questions, setting)
        settings, student = bench.settings, bench.settings.student
        distillation = student.distillation

        def note(name: str, *models: Path) -> None:
            rows.setdefault(name, []).append(bench.score(*models))
            print(seed, name, {key: round(of, 4) for key, of in rows[name][-1].items()}, flush=True)

        def taught(name: str, teachers: list[Path], heads: bool, first_stage: bool) -> Path:
            """Trains a student from the soft targets of some of the teachers."""
            learning = distillation.model_dump(include={"temperature", "alpha", "hints"})
            learning |= {
                "objective": settings.objective,
                "ensemble": {"weights": [1.0] * len(teachers)},
                "head_per_teacher": heads,
            }
            targets = targets_of[tuple(teachers)]
            start, more = None, {}
            if first_stage:
                stage = student.model_copy(update=dict(distillation.pretraining))
                soft = learning | {"alpha": SOFT_TARGETS_ALONE}
                unlabelled = {"soft_targets": targets, "transfer_files": bench.transfer_files}
                start = bench.train(f"{name}, stage 1", stage, "pretraining", seed, distillation=soft, **unlabelled)
                more = {"start": {"pretraining": f"{name}, stage 1"}}
            return bench.train(
                name, student, "student", seed, start, distillation=learning, soft_targets=targets, **more
            )

        for seed in range(first, first + seeds):
            large = bench.pretrain("large", seed)
            teachers = [
                bench.train(f"teacher {number}", of, "teacher", 10 * seed + number, large)
                for number, of in enumerate(settings.teachers, start=1)
            ]
            for number, teacher in enumerate(teachers, start=1):
                note(f"teacher {number}", teacher)
            note("ensemble of teachers", *teachers)
            targets_of = {tuple(some): bench.soft_targets(some, transfer=True) for some in (teachers[:1], teachers)}
            alone = bench.train("alone", student, "baseline", seed)
            note("student, hard labels", alone)
            note("1-o-1", taught("1-o-1", teachers[:1], heads=False, first_stage=False))
            note("1-avg-o-1", taught("1-avg-o-1", teachers, heads=False, first_stage=False))
            note("TMKD without stage 1", taught("no stage 1", teachers, heads=True, first_stage=False))
            note("TMKD with one teacher", taught("one teacher", teachers[:1], heads=False, first_stage=True))
            full = taught("TMKD", teachers, heads=True, first_stage=True)
            note("TMKD", full)
        ex.finish(bench, rows, {"a teacher": teachers[0], "TMKD": full}, began, output)


if __name__ == "__main__":
    typer.run(main)
