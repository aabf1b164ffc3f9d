"""Does distillation pay on packages.yaml? Several seeds: python -m benchmarks.distillation.packages.

Each seed draws other labelled and validation texts. First the baseline alone is trained in each of TREATMENTS; the one
that the validation splits of all seeds together like most becomes the baseline of a whole run of
pipelines/examples/packages.yaml per seed, the only ones that look at the eval split.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import typer
from rich.progress import track
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import RunOptions

from benchmarks.distillation.experiment import quiet
from stillhouse.modules.models.card import read_card
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.example_data.docstrings import sources_of_packages
from stillhouse.pipelines.example_data.packages import PACKAGES, collect, split, write_splits
from stillhouse.pipelines.local.paths import local_paths

REPOSITORY = Path(__file__).parents[2]
SETTINGS = "pipelines/examples/packages.yaml"
ADAM = "name: adam, schedule: cosine"
# Settings of `baseline`; without `epochs` as many updates as the student. All keep the best epoch on validation.
TREATMENTS = {
    "plain": f"{{augment: false, optimizer: {{{ADAM}, learning_rate: 0.01}}}}",
    "plain, a third of the learning rate": f"{{augment: false, optimizer: {{{ADAM}, learning_rate: 0.003}}}}",
    "words left out": f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.01}}}}",
    "words left out, a third of the learning rate": f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.003}}}}",
    "words left out, weight decay": f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.01, weight_decay: 0.1}}}}",
    "words left out, strong weight decay": (
        f"{{augment: true, optimizer: {{{ADAM}, learning_rate: 0.01, weight_decay: 1.0}}}}"
    ),
    "words left out, label smoothing": (
        f"{{augment: true, label_smoothing: 0.1, optimizer: {{{ADAM}, learning_rate: 0.01}}}}"
    ),
    "words left out, as many passes and as large batches as a teacher": (
        f"{{augment: true, epochs: 60, batch_size: 32, optimizer: {{{ADAM}, learning_rate: 0.01}}}}"
    ),
    "words left out, three times as many passes as a teacher": (
        f"{{augment: true, epochs: 180, batch_size: 32, optimizer: {{{ADAM}, learning_rate: 0.01}}}}"
    ),
}


def settings_of(seed: int, treatment: str, root: Path) -> list[str]:
    """Returns the overrides of a run.

    Args:
      seed: of teachers, student and baseline.
      treatment: settings of the baseline.
      root: folder of this seed, with its data.
    """
    return [
        f"data.path={root / 'data' / 'texts'}",
        f"data.transfer={root / 'data' / 'unlabelled'}",
        f"pretraining.words.seed={seed}",
        f"teachers.0.seed={100 * seed}",
        f"student.seed={seed}",
        f"baseline={treatment}",
        f"push.path={root / 'serving'}",
    ]


def validation_accuracy(seed: int, treatment: str, root: Path) -> float:
    """Trains the baseline alone and returns its accuracy on the validation split, in percent."""
    settings = load_settings(REPOSITORY / SETTINGS, settings_of(seed, treatment, root))
    paths = local_paths(settings, root / "baselines")
    Path(paths.root).mkdir(parents=True, exist_ok=True)
    LocalDagRunner().run(create_pipeline(settings, paths), run_options=RunOptions(to_nodes=["Baseline"]))
    newest = max(Path(paths.root, "Baseline", "model").iterdir(), key=lambda folder: int(folder.name))
    card = read_card(str(newest / "Format-Serving"))
    return 100 * card["history"]["validation_accuracy"][card["validation"]["best_epoch"] - 1]


def run(seed: int, treatment: str, root: Path) -> dict[str, Any]:
    """Returns comparison.json of a whole run."""
    command = [sys.executable, "-m", "stillhouse", "run", SETTINGS, "--json", "--root", str(root / "run")]
    command += [word for override in settings_of(seed, treatment, root) for word in ("--set", override)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    return json.loads(done.stdout)


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
    quiet()
    texts = collect(sources_of_packages(PACKAGES))
    with tempfile.TemporaryDirectory() as folder:
        roots = {seed: Path(folder) / str(seed) for seed in range(1, seeds + 1)}
        for seed, root in roots.items():
            write_splits(root / "data", split(texts, seed))
        validated = {
            name: [validation_accuracy(seed, treatment, root) for seed, root in roots.items()]
            for name, treatment in track(TREATMENTS.items(), description="baselines")
        }
        print("| treatment of the baseline | accuracy on validation (%) | per seed |\n|---|---|---|")
        for name, values in validated.items():
            print(row(name, values), flush=True)
        best = max(validated, key=lambda name: statistics.mean(validated[name]))
        print(f"\nchosen: {best}\n", flush=True)
        chosen = [run(seed, TREATMENTS[best], root) for seed, root in track(roots.items(), description="seeds")]
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
    (pair,) = [pair for pair in comparison["pairs"] if (pair["model"], pair["other"]) == ("Student", "Baseline")]
    return pair["p"]


if __name__ == "__main__":
    typer.run(main)
