"""Hinton's omitted digit: python -m benchmarks.distillation.omitted_class.

The student never sees one digit in its transfer set, but its teachers did. Hinton et al. 2015, section 3: after
omitting all 3s, the distilled net gets most test 3s right once the bias of that class is raised. Here the bias is
raised by the amount that gives the best accuracy on a validation split that has all digits.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import typer

from benchmarks.distillation import experiment as ex

TEACHERS = 10
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
BIASES = np.arange(0.0, 8.01, 0.1)


def corrected(scores: np.ndarray, digit: int, bias: float) -> np.ndarray:
    """Returns the logits with `bias` added to those of `digit`."""
    return scores + bias * (np.arange(scores.shape[-1]) == digit)


def main(digit: int = 3, seeds: int = 5) -> None:
    """Prints the table as Markdown."""
    ex.quiet()
    rows: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        task = ex.prepare("digits", Path(folder))
        student = task.settings.student
        _, validation_labels = task.read(task.validation)
        _, labels = task.read(task.evaluation)

        def note(name: str, scores: np.ndarray, bias: float) -> None:
            right = corrected(scores, digit, bias).argmax(-1) == labels
            rows.setdefault(name, []).append((right.mean(), right[labels == digit].mean(), bias))

        for seed in range(1, seeds + 1):
            teachers = ex.teach(task, task.fit, TEACHERS, seed)
            targets = ex.write_soft_targets(task, task.fit, teachers, Path(folder) / f"soft-{seed}")
            variants: dict[str, dict] = {"hard labels, no digit omitted": {}}
            variants[f"hard labels, {digit}s omitted"] = {"omit_classes": [digit]}
            for temperature in TEMPERATURES:
                variants[f"soft targets at T = {temperature:g}, {digit}s omitted"] = {
                    "omit_classes": [digit],
                    "distillation": ex.distillation_of(TEACHERS, temperature, alpha=1.0),
                    "soft_targets": targets,
                }
            for name, changes in variants.items():
                network = ex.trained(task, task.fit, ex.config_of(task, student, "student", seed, **changes))
                scores = ex.logits(task, network, task.evaluation)
                note(name, scores, 0.0)
                if "omitted" in name and "no digit" not in name:
                    on_validation = ex.logits(task, network, task.validation)
                    best = max(
                        BIASES,
                        key=lambda bias: (corrected(on_validation, digit, bias).argmax(-1) == validation_labels).mean(),
                    )
                    note(f"{name}, bias raised", scores, float(best))
            print(seed, {name: values[-1] for name, values in rows.items()}, flush=True)
    print(f"\n| student | accuracy (%) | accuracy on {digit}s (%) | bias |\n|---|---|---|---|")
    for name, values in rows.items():
        overall, of_digit, bias = zip(*values, strict=True)
        errors = [statistics.stdev(part) / len(part) ** 0.5 for part in (overall, of_digit)]
        print(
            f"| {name} | {100 * statistics.mean(overall):.1f} ± {100 * errors[0]:.1f} | "
            f"{100 * statistics.mean(of_digit):.1f} ± {100 * errors[1]:.1f} | {statistics.mean(bias):.1f} |"
        )


if __name__ == "__main__":
    typer.run(main)
