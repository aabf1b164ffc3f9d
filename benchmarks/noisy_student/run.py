"""Noisy Student on digits, round by round: python -m benchmarks.noisy_student.run [--seeds 5] [--validation].

A seed has a choice of a hundred labelled digits of its own, a teacher without noise, and four kinds of students, three
rounds each. Networks, settings and the making of pseudo-labels are those of pipelines/examples/noisy-student.yaml, by
the same components; only the DAG around them is left out. With --validation it looks at the validation split, which
chose the settings, with other seeds; without it, at the eval split.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import typer
from sklearn.datasets import load_digits
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import standard_artifacts

from benchmarks.as_in_pipeline import artifact, run_to_transform, training_config, write_soft_targets
from benchmarks.distillation.experiment import quiet
from benchmarks.noisy_student.corruptions import CORRUPTIONS, SEVERITIES, corrupted, mean_corruption_error
from benchmarks.noisy_student.perturbations import OF_NOISE, PERTURBATIONS, flip_probability, sequence
from stillhouse.components.pseudo_labels.executor import Executor as PseudoLabels
from stillhouse.modules.settings import Training, load_settings
from stillhouse.modules.training.launch import run_fn
from stillhouse.pipelines.dag.nodes import Dag
from stillhouse.pipelines.example_data.few_digits import split_of_digits

SETTINGS = Path(__file__).parents[2] / "pipelines" / "examples" / "noisy-student.yaml"
BRIGHTEST = 16.0
VALIDATION_SEED = 1001  # the first of those that choose settings


class Digits:
    """All digits, and how the models do on some of them."""

    def __init__(self, split: str):
        pixels, self.labels = load_digits(return_X_y=True)
        self.images = (pixels.reshape(-1, 8, 8) / BRIGHTEST).astype(np.float32)
        rows = split_of_digits(self.labels)[split]
        self._images, self._labels = self.images[rows], self.labels[rows]

    def measured(self, model: str) -> dict:
        """Returns accuracy, errors on corrupted and flip probabilities on perturbed digits of a SavedModel."""
        logits = tf.saved_model.load(model).signatures["logits"]

        def classes(images: np.ndarray) -> np.ndarray:
            found = logits(image=tf.constant(images.reshape(-1, 8, 8, 1)))["logits"].numpy().argmax(axis=-1)
            return found.reshape(images.shape[:-2])

        errors = {
            name: [
                float((classes(corrupted(self._images, name, severity)) != self._labels).mean())
                for severity in range(SEVERITIES)
            ]
            for name in CORRUPTIONS
        }
        flips = {
            name: flip_probability(classes(sequence(self._images, name)), name in OF_NOISE) for name in PERTURBATIONS
        }
        accuracy = float((classes(self._images) == self._labels).mean())
        return {"accuracy": accuracy, "errors": errors, "flips": flips}


class Trial:
    """The trainings of one seed, in a folder of their own."""

    def __init__(self, dag: Dag, graph: Path, digits: Digits, seed: int, folder: Path):
        self._dag, self._settings, self._seed, self._folder, self._made = dag, dag.settings, seed, folder, 0
        self._graph = artifact(standard_artifacts.TransformGraph, graph)
        rows = split_of_digits(digits.labels, seed)
        for name, split in (("train", "labelled"), ("eval", "validation"), ("transfer", "unlabelled")):
            path = folder / "examples" / f"Split-{name}" / "examples.gz"
            path.parent.mkdir(parents=True)
            with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
                for row in rows[split]:
                    example = tf.train.Example()
                    example.features.feature["image"].float_list.value.extend(digits.images[row].reshape(-1))
                    if name != "transfer":
                        example.features.feature["label"].int64_list.value.append(digits.labels[row])
                    writer.write(example.SerializeToString())
        self._examples = artifact(standard_artifacts.Examples, folder / "examples", "train", "eval")
        self._transfer = artifact(standard_artifacts.Examples, folder / "examples", "transfer")

    def trained(self, of: Training, role: str, seed: int, **changes) -> Path:
        """Trains a network and returns the folder of its SavedModel."""
        self._made += 1
        folder = self._folder / f"model-{self._made}"
        config = training_config(self._dag, of, role, seed, **changes)
        run_fn(
            FnArgs(
                train_files=[str(self._folder / "examples" / "Split-train" / "*")],
                eval_files=[str(self._folder / "examples" / "Split-eval" / "*")],
                transform_graph_path=self._graph.uri,
                serving_model_dir=str(folder / "Format-Serving"),
                model_run_dir=str(folder / "run"),
                custom_config=config.model_dump(mode="json"),
            )
        )
        return folder

    def taught(self, teacher: Path, of: Training, kind: str, seed: int) -> Path:
        """Makes pseudo-labels by a teacher, trains a student on them, and returns its folder."""
        self._made += 1
        folder = self._folder / f"labels-{self._made}"
        said = write_soft_targets(
            folder / "said", Path(self._graph.uri), "label", [teacher], self._folder / "examples", transfer=True
        )
        chosen = artifact(standard_artifacts.Examples, folder / "chosen")
        targets = artifact(standard_artifacts.Examples, folder / "targets")
        one = {"weights": [1.0], "combination": "arithmetic"}
        rule = of.distillation.pseudo_labels.model_dump(exclude={"rounds"}) | {"kind": kind}
        PseudoLabels().Do(
            {
                "examples": [self._examples],
                "transfer_examples": [self._transfer],
                "transform_graph": [self._graph],
                "soft_targets": [artifact(standard_artifacts.Examples, Path(said))],
            },
            {"pseudo_labelled": [chosen], "targets": [targets]},
            {"label": "label", "rule": json.dumps(rule), "ensemble": json.dumps(one)},
        )
        learning = of.distillation.model_dump(include={"temperature", "alpha", "hints", "head_per_teacher"})
        return self.trained(
            of,
            "student",
            seed,
            distillation=learning | {"ensemble": one, "objective": self._settings.objective},
            soft_targets=targets.uri,
            transfer_files=[f"{chosen.uri}/Split-transfer/*"],
        )

    def run(self, kinds: list[str]) -> dict[str, Path]:
        """Returns the models by what they are: teacher, KIND ROUND..., no unlabelled data."""
        of, seed = self._settings.student, 100 * self._seed
        found = {"teacher": self.trained(self._settings.teachers[0], "teacher", seed)}
        quiet_student = of.model_copy(
            update={"augment": False, "hyperparameters": of.hyperparameters | {"dropout": 0.0, "survival": 1.0}}
        )
        for kind in kinds:
            if kind == "no unlabelled data":
                found[kind] = self.trained(of, "baseline", seed + 9)
                continue
            student = quiet_student if kind == "no noise" else of
            teacher = found["teacher"]
            for number in range(1, of.distillation.pseudo_labels.rounds + 1):
                teacher = self.taught(teacher, student, "hard" if kind == "hard labels" else "soft", seed + number)
                found[f"{kind} {number}"] = teacher
        return found


KINDS = ["soft labels", "hard labels", "no noise", "no unlabelled data"]


def main(
    seeds: int = 5, validation: bool = False, kinds: str = ",".join(KINDS), setting: list[str] | None = None
) -> None:
    """Trains and prints the table; --setting KEY=VALUE changes the settings file's, as --set does."""
    quiet()
    tf.config.threading.set_inter_op_parallelism_threads(2)
    settings = load_settings(SETTINGS, setting)
    digits = Digits("validation" if validation else "eval")
    first = VALIDATION_SEED if validation else 1
    rows: dict[str, list[dict]] = {}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        place, graph = run_to_transform(settings, Path(folder) / "data")
        for seed in range(first, first + seeds):
            trial = Trial(Dag(settings, place), graph, digits, seed, Path(folder) / str(seed))
            for name, model in trial.run(kinds.split(",")).items():
                rows.setdefault(name, []).append(digits.measured(str(model / "Format-Serving")))
            latest = {name: round(found[-1]["accuracy"], 4) for name, found in rows.items()}
            print(seed, latest, flush=True)
    print(f"\n{seeds} seeds, mean ± standard deviation; {(time.process_time() - began) / 60:.0f} minutes of CPU time\n")
    print("| model | clean accuracy (%) | mCE (%) | mean flip rate (%) |\n|---|---|---|---|")
    for name, found in rows.items():
        columns = {"accuracy": [], "mce": [], "flips": []}
        for own, teacher in zip(found, rows["teacher"], strict=True):
            columns["accuracy"].append(own["accuracy"])
            columns["mce"].append(mean_corruption_error(own["errors"], teacher["errors"]))
            columns["flips"].append(
                float(np.mean([own["flips"][one] / teacher["flips"][one] for one in PERTURBATIONS]))
            )
        cells = [f"{100 * statistics.mean(of):.1f} ± {100 * statistics.stdev(of):.1f}" for of in columns.values()]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
