"""Chooses T, alpha and the learning rate: python -m benchmarks.distillation.choose --task-name digits|taxi.

The validation split is every fifth example of the train split. The eval split is not looked at. Writes
sweep-TASK.json and sweep-TASK.svg beside this file, and prints what it chose.
"""

import json
import statistics
import tempfile
from pathlib import Path

import typer
from matplotlib.figure import Figure

from benchmarks.distillation import experiment as ex

HERE = Path(__file__).parent
TEACHERS = 10
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
ALPHAS = (0.3, 0.5, 0.7, 0.9, 1.0)
RATES = (0.125, 0.25, 0.5, 1.0, 2.0)  # times the learning rate that the settings file had before
SEEDS = (101, 102, 103)  # others than those of the tables
# The best of the grid are trained again, because three seeds do not tell them apart.
FINALISTS = 5
MORE_SEEDS = tuple(range(104, 114))


def figure(found: dict, path: Path) -> None:
    """Draws mean validation accuracy over T for each alpha, with the twin that learns without teachers."""
    plot = Figure(figsize=(7, 4.2), layout="constrained")
    axes = plot.subplots()
    for alpha in ALPHAS:
        rows = [row for row in found["students"] if row["alpha"] == alpha]
        axes.errorbar(
            [row["temperature"] for row in rows],
            [100 * row["mean"] for row in rows],
            [100 * row["error"] for row in rows],
            marker="o",
            capsize=3,
            label=f"α = {alpha:g}",
        )
    axes.axhline(100 * found["baseline"]["mean"], color="grey", linestyle="--", label="without teachers")
    axes.axhline(100 * found["ensemble"], color="black", linestyle=":", label=f"ensemble of {TEACHERS}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(TEMPERATURES, [f"{t:g}" for t in TEMPERATURES])
    axes.set_xlabel("temperature T")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title(f"{found['task']}: student on validation, mean ± standard error of {len(SEEDS)} seeds")
    axes.legend(fontsize=8)
    plot.savefig(path, metadata={"Date": None})


def scored(values: list[float]) -> dict[str, float]:
    """Returns mean and standard error."""
    return {"mean": statistics.mean(values), "error": statistics.stdev(values) / len(values) ** 0.5}


def main(task_name: str = "digits") -> None:
    """Runs the sweep of one task."""
    ex.quiet()
    with tempfile.TemporaryDirectory() as folder:
        task = ex.prepare(task_name, Path(folder))
        student = task.settings.student
        rate = student.optimizer.learning_rate
        examples = len(task.read(task.validation)[1])

        def accuracy(network):
            return ex.accuracy(task, ex.logits(task, network, task.validation), task.validation)

        rates = []
        for factor in RATES:
            optimizer = student.optimizer.model_dump() | {"learning_rate": factor * rate}
            values = [
                accuracy(ex.trained(task, task.fit, ex.config_of(task, student, "baseline", seed, optimizer=optimizer)))
                for seed in SEEDS
            ]
            rates.append({"learning_rate": factor * rate} | scored(values))
            print(rates[-1], flush=True)
        best_rate = max(rates, key=lambda row: row["mean"])
        optimizer = student.optimizer.model_dump() | {"learning_rate": best_rate["learning_rate"]}
        baseline = [
            accuracy(ex.trained(task, task.fit, ex.config_of(task, student, "baseline", seed, optimizer=optimizer)))
            for seed in (*SEEDS, *MORE_SEEDS)
        ]

        teachers = ex.teach(task, task.fit, TEACHERS, seed=100)
        members = [ex.logits(task, teacher, task.validation) for teacher in teachers]
        ensemble = ex.accuracy(task, ex.mean_distribution(members), task.validation)
        targets = ex.write_soft_targets(task, task.fit, teachers, Path(folder) / "soft")

        def taught(temperature, alpha, seeds):
            learning = ex.distillation_of(TEACHERS, temperature, alpha)
            changes = {"optimizer": optimizer, "distillation": learning, "soft_targets": targets}
            configs = [ex.config_of(task, student, "student", seed, **changes) for seed in seeds]
            return [accuracy(ex.trained(task, task.fit, config)) for config in configs]

        students, values = [], {}
        for temperature in TEMPERATURES:
            for alpha in ALPHAS:
                values[temperature, alpha] = taught(temperature, alpha, SEEDS)
                students.append({"temperature": temperature, "alpha": alpha} | scored(values[temperature, alpha]))
                print(students[-1], flush=True)
        finalists = []
        for row in sorted(students, key=lambda row: -row["mean"])[:FINALISTS]:
            point = row["temperature"], row["alpha"]
            all_values = values[point] + taught(*point, MORE_SEEDS)
            finalists.append({"temperature": point[0], "alpha": point[1]} | scored(all_values))
            print("finalist", finalists[-1], flush=True)
    best = max(finalists, key=lambda row: row["mean"])
    found = {
        "task": task_name,
        "validation_examples": examples,
        "learning_rates": rates,
        "baseline": scored(baseline),
        "ensemble": ensemble,
        "students": students,
        "finalists": finalists,
        "chosen": {"learning_rate": best_rate["learning_rate"], **best},
    }
    (HERE / f"sweep-{task_name}.json").write_text(json.dumps(found, indent=1) + "\n")
    figure(found, HERE / f"sweep-{task_name}.svg")
    print(f"chosen for {task_name}: {found['chosen']}")


if __name__ == "__main__":
    typer.run(main)
