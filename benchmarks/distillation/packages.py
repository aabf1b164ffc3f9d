"""Does distillation pay on packages.yaml? Several seeds: python -m benchmarks.distillation.packages.

Each seed draws other labelled and validation texts and is a whole run of pipelines/examples/packages.yaml. The baseline is
then trained again in each of TREATMENTS; the one of which the validation splits of all seeds together like most is
compared with the student on the eval split.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import typer
from rich.progress import track

from stillhouse.pipelines.example_data.docstrings import sources_of_packages
from stillhouse.pipelines.example_data.packages import PACKAGES, collect, split, write_splits

REPOSITORY = Path(__file__).parents[2]
SETTINGS = "pipelines/examples/packages.yaml"
ADAM = "name: adam, schedule: cosine"
# Settings of `baseline`; all make as many updates as the student and keep the epoch that validation likes best.
TREATMENTS = {
    "plain": f"{{augment: false, optimizer: {{{ADAM}, learning_rate: 0.01}}}}",
    "plain, a third of the learning rate": f"{{augment: false, optimizer: {{{ADAM}, learning_rate: 0.003}}}}",
    "words left out": f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.01}}}}",
    "words left out, a third of the learning rate": f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.003}}}}",
    "words left out, weight decay": f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.01, weight_decay: 0.1}}}}",
    "words left out, label smoothing": f"{{augment: true, label_smoothing: 0.1, optimizer: {{{ADAM}, learning_rate: 0.01}}}}",
}
BEST = re.compile(r"Baseline: weights of epoch .* on the validation split: .*accuracy ([0-9.]+)")


def run(seed: int, treatment: str, root: Path) -> tuple[dict[str, Any], float | None]:
    """Returns comparison.json of a run, and the baseline's accuracy on validation if it was trained in it.

    Args:
      seed: of teachers, student and baseline.
      treatment: settings of the baseline.
      root: folder of this seed, with its data; runs in it share what they have in common.
    """
    overrides = [
        f"data.path={root / 'data' / 'texts'}",
        f"data.transfer={root / 'data' / 'unlabelled'}",
        f"pretraining.words.seed={seed}",
        f"teachers.0.seed={100 * seed}",
        f"student.seed={seed}",
        f"baseline={treatment}",
        f"push.path={root / 'serving'}",
    ]
    command = [sys.executable, "-m", "stillhouse", "run", SETTINGS, "--json", "--root", str(root / "run")]
    command += [word for override in overrides for word in ("--set", override)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    found = BEST.findall(done.stderr)
    return json.loads(done.stdout), float(found[-1]) if found else None


def of_role(comparison: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """Returns the models of a role."""
    return [model for model in comparison["models"] if model["role"] == role]


def accuracy(comparison: dict[str, Any], role: str) -> float:
    """Returns the mean accuracy of the models of a role, in percent."""
    return 100 * statistics.mean(model["metrics"]["accuracy"] for model in of_role(comparison, role))


def with_error(values: list[float]) -> str:
    """Returns "mean ± standard error"."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.1f} ± {error:.1f}"


def row(name: str, values: list[float]) -> str:
    """Returns a row of the table."""
    return f"| {name} | {with_error(values)} | {' '.join(f'{value:.1f}' for value in values)} |"


def main(seeds: int = 5) -> None:
    """Prints the tables as Markdown."""
    texts = collect(sources_of_packages(PACKAGES))
    results: dict[str, list[tuple[dict[str, Any], float | None]]] = {name: [] for name in TREATMENTS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in track(range(1, seeds + 1), description="seeds"):
            root = Path(folder) / str(seed)
            write_splits(root / "data", split(texts, seed))
            for name, treatment in TREATMENTS.items():
                results[name].append(run(seed, treatment, root))
    on_validation = {name: [100 * (value or 0.0) for _, value in runs] for name, runs in results.items()}
    best = max(on_validation, key=lambda name: statistics.mean(on_validation[name]))
    print("| treatment of the baseline | validation, mean | eval, mean |\n|---|---|---|")
    for name, runs in results.items():
        evaluated = [accuracy(comparison, "baseline") for comparison, _ in runs]
        print(
            f"| {name}{' (chosen)' if name == best else ''} | {with_error(on_validation[name])} | {with_error(evaluated)} |"
        )
    chosen = [comparison for comparison, _ in results[best]]
    figures = {role: [accuracy(one, role) for one in chosen] for role in ("teacher", "ensemble", "baseline", "student")}
    gains = [s - b for s, b in zip(figures["student"], figures["baseline"], strict=True)]
    gaps = [e - b for e, b in zip(figures["ensemble"], figures["baseline"], strict=True)]
    print(f"\n| accuracy (%) | mean over {seeds} seeds ± standard error | per seed |\n|---|---|---|")
    for role, values in figures.items():
        print(row(role, values))
    print(row("student − baseline", gains))
    print(row("share of the gap recovered (%)", [100 * gain / gap for gain, gap in zip(gains, gaps, strict=True)]))
    teacher, student = (of_role(chosen[0], role)[0]["parameters"] for role in ("teacher", "student"))
    print(f"\nparameters: student {student:,}, one teacher {teacher:,}: {teacher / student:.0f} times as many")
    print("McNemar's p per seed:", *(f"{p_value(one):.1g}" for one in chosen))


def p_value(comparison: dict[str, Any]) -> float:
    """Returns the p of the paired test of student and baseline."""
    tests = comparison["paired"] if isinstance(comparison["paired"], list) else comparison["paired"].values()
    return next(test["p"] for test in tests if "Baseline" in json.dumps(test))


if __name__ == "__main__":
    typer.run(main)
