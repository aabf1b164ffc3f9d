"""Baseline, teachers, ensemble and student on digits over several seeds: python benchmarks/digits_seeds/run.py.

Each seed is a whole run of pipelines/examples/digits.yaml with other seeds for teachers, baseline and student, on the
same data split. The eval split chooses nothing; where the hyperparameters come from stands in README.md.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import typer
from rich.progress import track

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SETTINGS = "pipelines/examples/digits.yaml"
ROLES = ("teacher", "ensemble", "baseline", "student")


def accuracies(seed: int, root: Path) -> dict[str, list[float]]:
    """Runs the pipeline with `seed` and returns the accuracies by role."""
    overrides = [f"teachers.0.seed={100 * seed}", f"student.seed={seed}", f"push.path={root / 'serving'}"]
    command = [sys.executable, "-m", "stillhouse", "run", SETTINGS, "--json", "--root", str(root)]
    command += [word for override in overrides for word in ("--set", override)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    found: dict[str, list[float]] = {role: [] for role in ROLES}
    for model in json.loads(done.stdout)["models"]:
        if model["role"] in found:
            found[model["role"]].append(model["metrics"]["accuracy"])
    return found


def main(seeds: int = 5) -> None:
    """Prints the table of means and standard errors as Markdown."""
    with tempfile.TemporaryDirectory() as root:
        runs = [accuracies(seed, Path(root)) for seed in track(range(1, seeds + 1), description="seeds")]
    print(f"| role | mean accuracy over {seeds} seeds | standard error | per seed |\n|---|---|---|---|")
    for role in ROLES:
        values = [statistics.mean(run[role]) for run in runs]
        error = statistics.stdev(values) / len(values) ** 0.5
        print(f"| {role} | {statistics.mean(values):.4f} | {error:.4f} | {' '.join(f'{v:.4f}' for v in values)} |")
    gains = [run["student"][0] - run["baseline"][0] for run in runs]
    error = statistics.stdev(gains) / len(gains) ** 0.5
    print(
        f"| student − baseline | {statistics.mean(gains):+.4f} | {error:.4f} | {' '.join(f'{g:+.4f}' for g in gains)} |"
    )


if __name__ == "__main__":
    typer.run(main)
