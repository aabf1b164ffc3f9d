"""Hinton's three rows on an example task: python -m benchmarks.distillation.hinton_table --task-name digits|taxi.

Baseline (one model on hard labels), 10x ensemble, and one model distilled from the ensemble, over several seeds, on the
eval split. Two students: the small one of the settings file, and one of the teachers' own size as in the paper. T,
alpha and the learning rate are those of the settings file, which choose.py chose on a validation split.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import typer

from benchmarks.distillation import experiment as ex

TEACHERS = 10


def row(name: str, values: list[float]) -> str:
    """Returns a row of the Markdown table."""
    error = statistics.stdev(values) / len(values) ** 0.5
    each = " ".join(f"{100 * value:.2f}" for value in values)
    return f"| {name} | {100 * statistics.mean(values):.2f} ± {100 * error:.2f} | {each} |"


def recovered(baseline: list[float], ensemble: list[float], distilled: list[float]) -> str:
    """Returns (distilled − baseline) / (ensemble − baseline) of the means, with the difference of the seeds' pairs."""
    gain = statistics.mean(distilled) - statistics.mean(baseline)
    possible = statistics.mean(ensemble) - statistics.mean(baseline)
    pairs = [after - before for before, after in zip(baseline, distilled, strict=True)]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    share = f"{gain / possible:.2f}" if possible > 0 else "none (the ensemble is not better)"
    return f"recovered fraction {share}; distilled − baseline {100 * gain:+.2f} ± {100 * error:.2f} points"


def main(task_name: str = "digits", seeds: int = 5) -> None:
    """Prints the tables as Markdown."""
    ex.quiet()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        task = ex.prepare(task_name, Path(folder))
        settings = task.settings
        learning = settings.student.distillation
        distillation = ex.distillation_of(TEACHERS, learning.temperature.start, learning.alpha.start)
        large = settings.teachers[0]

        def note(name: str, network) -> None:
            scores = ex.logits(task, network, task.evaluation)
            found.setdefault(name, []).append(ex.accuracy(task, scores, task.evaluation))

        for seed in range(1, seeds + 1):
            teachers = ex.teach(task, task.train, TEACHERS, seed)
            members = [ex.logits(task, teacher, task.evaluation) for teacher in teachers]
            ensemble = ex.accuracy(task, ex.mean_distribution(members), task.evaluation)
            found.setdefault("ensemble", []).append(ensemble)
            note("same-size baseline", teachers[0])
            targets = ex.write_soft_targets(task, task.train, teachers, Path(folder) / f"soft-{seed}")
            taught = {"distillation": distillation, "soft_targets": targets}
            note("baseline", ex.trained(task, task.train, ex.config_of(task, settings.student, "baseline", seed)))
            small = ex.config_of(task, settings.student, "student", seed, **taught)
            note("distilled", ex.trained(task, task.train, small))
            same_size = replace(ex.config_of(task, large, "student", 1000 * seed), **taught)
            note("same-size distilled", ex.trained(task, task.train, same_size))
            print(seed, {name: round(values[-1], 4) for name, values in found.items()}, flush=True)
        examples = len(task.read(task.evaluation)[1])
    print(
        f"\n{task_name}: {examples} eval examples, T = {learning.temperature.start:g}, α = {learning.alpha.start:g}\n"
    )
    print(f"| system | accuracy (%), mean ± standard error of {seeds} seeds | per seed |\n|---|---|---|")
    print(row("baseline (small student, hard labels)", found["baseline"]))
    print(row(f"{TEACHERS}× ensemble of teachers", found["ensemble"]))
    print(row("distilled small student", found["distilled"]))
    print(row("same-size baseline (one teacher)", found["same-size baseline"]))
    print(row("same-size distilled", found["same-size distilled"]))
    print(f"\nsmall: {recovered(found['baseline'], found['ensemble'], found['distilled'])}")
    print(f"same size: {recovered(found['same-size baseline'], found['ensemble'], found['same-size distilled'])}")


if __name__ == "__main__":
    typer.run(main)
