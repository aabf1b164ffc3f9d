"""What the text benchmarks share: data, trainings and scores, by stillhouse's own parts.

Every network is trained by modules.training with the configuration that the pipeline of the settings file would
give it; soft targets are written by the SoftTargets component. Only the DAG around them is left out, so that variants
share what they have in common. Scores are those of stillhouse.components.ranking_metrics, as in TFMA.
"""

import json
import statistics
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft
from sklearn.model_selection import GroupKFold
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.as_in_pipeline import run_to_transform, training_config, write_soft_targets
from stillhouse.components.ranking_metrics import precision_at_one, reciprocal_rank
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.heads import MASKED
from stillhouse.modules.models.serving import size_in_bytes
from stillhouse.modules.settings import Settings, Training, load_settings
from stillhouse.modules.training.launch import run_fn
from stillhouse.pipelines.dag.nodes import Dag
from stillhouse.pipelines.example_data.docstrings import family_of

EXAMPLES = Path(__file__).parents[2] / "pipelines" / "examples"
DATA = Path(__file__).parents[2] / "data" / "questions"
VALIDATION_FOLDS = 6  # of the train split's packages, of which one is the validation's
INPUTS = ("tokens", "segments", "matches")
MODEL = "Format-Serving"


@dataclass(frozen=True)
class Pairs:
    """Transformed pairs of question and passage."""

    tokens: np.ndarray  # int64 [pairs, length]
    segments: np.ndarray
    matches: np.ndarray
    relevant: np.ndarray  # int64 [pairs]
    questions: np.ndarray  # int64 [pairs]: the number of the question

    def some(self, rows: np.ndarray) -> "Pairs":
        """Returns the pairs in these rows."""
        return Pairs(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass
class Bench:
    """Transformed data in files, and the trainings of one seed after the other."""

    settings: Settings
    root: Path
    graph: Path
    scored: Pairs  # eval split, or validation packages of the train split
    dag: Dag
    made: int = 0

    def train(self, name: str, of: Training, role: str, seed: int, base: Path | None = None, **more) -> Path:
        """Trains a network and returns its folder; `base` is that of the one to start from."""
        self.made += 1
        folder = self.root / f"{self.made:03d}-{name}".replace(" ", "-").replace("/", "-")
        config = training_config(self.dag, of, role, seed, name, **more)
        examples = self.root / "examples"
        run_fn(
            FnArgs(
                train_files=[str(examples / "Split-train" / "*")],
                eval_files=[str(examples / "Split-eval" / "*")],
                transform_graph_path=str(self.graph),
                serving_model_dir=str(folder / MODEL),
                model_run_dir=str(folder / "run"),
                base_model=str(base / MODEL) if base else None,
                custom_config=config.model_dump(mode="json"),
            )
        )
        return folder

    def pretrain(
        self,
        name: str,
        seed: int,
        start: Path | None = None,
        teacher: Path | None = None,
        learning: dict[str, Any] | None = None,
    ) -> Path:
        """Trains a masked language model of the settings; `learning` has changes to how it learns from the teacher."""
        of = self.settings.pretraining[name]
        hidden = ["states"] if teacher is None else []
        more: dict[str, Any] = {
            "head": MASKED,
            "label": of.tokens,
            "masking": {"share": of.mask_share, "label": self.settings.data.label},
            "hidden_layers": hidden,
            "start": of.start if start else None,
        }
        if teacher:
            plain = of.distillation.model_dump(include={"temperature", "alpha", "hints"})
            one = {"objective": "kl_divergence", "ensemble": {"weights": [1.0]}}
            more |= {"distillation": plain | one | (learning or {}), "teachers": [str(teacher / MODEL)]}
        return self.train(name, of, "pretraining", seed, start, **more)

    def soft_targets(self, teachers: list[Path], transfer: bool = False) -> str:
        """Writes what the teachers say and returns the folder."""
        self.made += 1
        folder = self.root / f"{self.made:03d}-targets"
        label, examples = self.settings.data.label, self.root / "examples"
        return write_soft_targets(folder, self.graph, label, teachers, examples, transfer)

    @property
    def transfer_files(self) -> list[str]:
        """Patterns of the unlabelled examples."""
        return [str(self.root / "examples" / "Split-transfer" / "*")]

    def score(self, *models: Path) -> dict[str, float]:
        """Returns mean reciprocal rank, precision at 1 and accuracy of a model, or of several whose mean answers."""
        scores = np.mean([self.probabilities(model) for model in models], axis=0)
        return self.ranking(scores) | {"accuracy": float(((scores > 0.5) == (self.scored.relevant == 1)).mean())}

    def ranking(self, scores: np.ndarray) -> dict[str, float]:
        """Returns mean reciprocal rank and precision at 1 if the pairs are ranked by these scores."""
        order = np.argsort(self.scored.questions, kind="stable")
        bounds = np.flatnonzero(np.diff(self.scored.questions[order])) + 1
        relevant, ranked = (np.split(of[order], bounds) for of in (self.scored.relevant == 1, scores))
        pairs = [(own, of) for own, of in zip(relevant, ranked, strict=True) if own.any()]
        return {
            "mrr": float(np.mean([reciprocal_rank(*pair) for pair in pairs])),
            "p@1": float(np.mean([precision_at_one(*pair) for pair in pairs])),
        }

    def probabilities(self, model: Path) -> np.ndarray:
        """Returns the probability of class 1 of each scored pair."""
        logits = saved_models.load(str(model / MODEL)).signatures["logits"]
        names = list(logits.structured_input_signature[1])
        found = []
        for begin in range(0, len(self.scored.relevant), 512):
            rows = slice(begin, begin + 512)
            given = {name: tf.constant(getattr(self.scored, name)[rows]) for name in names}
            found.append(tf.nn.softmax(logits(**given)["logits"])[:, 1].numpy())
        return np.concatenate(found)


def prepare(
    name: str, root: Path, validation: bool, questions: int | None, overrides: list[str] | None = None
) -> Bench:
    """Transforms the data of an example's settings into files below `root`.

    Args:
      name: of the settings file.
      root: an empty folder.
      validation: score models on packages of the train split that are then left out of the training.
      questions: to train on, at the most; None: all.
      overrides: as --set.
    """
    settings = load_settings(EXAMPLES / f"{name}.yaml", overrides)
    place, graph = run_to_transform(settings, root / "pipeline")
    transform = tft.TFTransformOutput(str(graph))
    train = _pairs(transform, DATA / "pairs" / "train.csv")
    if validation:
        packages = pd.read_csv(DATA / "pairs" / "train.csv")["package"]
        *_, (kept, held_out) = GroupKFold(VALIDATION_FOLDS).split(packages, groups=packages.map(family_of))
        train, scored = train.some(kept), train.some(held_out)
    else:
        scored = _pairs(transform, DATA / "pairs" / "eval.csv")
    if questions is not None:
        train = train.some(np.isin(train.questions, np.unique(train.questions)[:questions]))
    _write(root / "examples" / "Split-train", train)
    _write(root / "examples" / "Split-eval", scored.some(np.arange(min(1000, len(scored.relevant)))))
    if settings.data.transfer:
        unlabelled = _pairs(transform, DATA / "unlabelled" / "unlabelled.csv")
        unlabelled = unlabelled.some(np.isin(unlabelled.questions, train.questions))
        _write(root / "examples" / "Split-transfer", unlabelled, labelled=False)
    print(f"{len(train.relevant):,} pairs to train on, {len(scored.relevant):,} to score", flush=True)
    return Bench(settings, root, graph, scored, Dag(settings, place))


def _pairs(transform: tft.TFTransformOutput, path: Path) -> Pairs:
    frame = pd.read_csv(path, keep_default_na=False)
    layer, parts = transform.transform_features_layer(), []
    for begin in range(0, len(frame), 4096):
        part = frame.iloc[begin : begin + 4096]
        raw = {name: tf.constant(part[name].to_numpy(str))[:, None] for name in ("question", "passage")}
        raw |= {name: tf.constant([["unknown"]] * len(part)) for name in ("candidate", "package")}
        raw |= {name: tf.zeros([len(part), 1], tf.int64) for name in ("question_id", "relevant")}
        found = layer(raw)
        parts.append([found[name].numpy() for name in INPUTS])
    relevant = frame["relevant"] if "relevant" in frame else np.full(len(frame), -1)
    features = [np.concatenate(of) for of in zip(*parts, strict=True)]
    return Pairs(*features, np.asarray(relevant, np.int64), frame["question_id"].to_numpy(np.int64))


def _write(folder: Path, pairs: Pairs, labelled: bool = True) -> None:
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "examples.gz"), "GZIP") as writer:
        columns = [getattr(pairs, name) for name in INPUTS]
        for *features, relevant in zip(*columns, pairs.relevant, strict=True):
            example = tf.train.Example()
            for name, values in zip(INPUTS, features, strict=True):
                example.features.feature[name].int64_list.value.extend(values)
            if labelled:
                example.features.feature["relevant"].int64_list.value.append(relevant)
            writer.write(example.SerializeToString())


def parameters_and_bytes(model: Path) -> tuple[int, int]:
    """Returns the number of weights, and the size of the SavedModel."""
    return read_card(str(model / MODEL))["parameters"], size_in_bytes(str(model / MODEL))


def latencies(bench: Bench, models: list[Path], batch: int, rounds: int = 200) -> list[list[float]]:
    """Returns each model's times for a batch of transformed pairs, in ms; the models are asked in turn."""
    signatures = [saved_models.load(str(model / MODEL)).signatures["logits"] for model in models]
    given = [
        {name: tf.constant(getattr(bench.scored, name)[:batch]) for name in one.structured_input_signature[1]}
        for one in signatures
    ]
    times: list[list[float]] = [[] for _ in models]
    for number in range(rounds + 5):
        for signature, features, samples in zip(signatures, given, times, strict=True):
            began = time.perf_counter()
            signature(**features)["logits"].numpy()
            if number >= 5:
                samples.append(1000 * (time.perf_counter() - began))
    return times


def finish(
    bench: Bench,
    rows: dict[str, list[dict[str, float]]],
    compared: dict[str, Path],
    began: tuple[float, float],
    output: Path | None,
) -> None:
    """Measures sizes and latencies and prints the tables.

    Args:
      bench: the trainings.
      rows: scores of each seed by model.
      compared: a teacher and a student by what they are called.
      began: wall clock and CPU time when it began, in seconds.
      output: a file for all figures as JSON.
    """
    models = list(compared.values())
    sizes = [parameters_and_bytes(model) for model in models]
    times = {batch: latencies(bench, models, batch) for batch in (1, 64)}
    minutes, of_cpu = (time.monotonic() - began[0]) / 60, (time.process_time() - began[1]) / 60
    if output:
        found = {"rows": rows, "sizes": sizes, "latencies": times, "minutes": minutes, "cpu_minutes": of_cpu}
        output.write_text(json.dumps(found))
    seeds = len(next(iter(rows.values())))
    print(f"\n{seeds} seeds, mean ± standard deviation; {minutes:.0f} minutes, {of_cpu:.0f} of CPU time\n")
    print_rows(bench, rows)
    print("\n| | parameters | bytes | one pair, ms | 64 pairs, ms |\n|---|---|---|---|---|")
    for number, name in enumerate(compared):
        (parameters, size), medians = sizes[number], [statistics.median(of[number]) for of in times.values()]
        print(f"| {name} | {parameters:,} | {size:,} | {medians[0]:.2f} | {medians[1]:.1f} |")
    ratios = [np.percentile(np.divide(*of), (50, 25, 75)) for of in times.values()]
    cells = [f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in ratios]
    parameters, size = (of_teacher / of_student for of_teacher, of_student in zip(*sizes, strict=True))
    print(f"| {' / '.join(compared)}, median (quartiles) | {parameters:.2f} | {size:.2f} | {' | '.join(cells)} |")


def print_rows(bench: Bench, rows: dict[str, list[dict[str, float]]]) -> None:
    """Prints the table of scores, with those that need no training at its end."""
    print("| | MRR (%) | P@1 (%) | accuracy (%) |\n|---|---|---|---|")
    for name, found in rows.items():
        print(row(name, found))
    untrained = {"chance": np.zeros(len(bench.scored.relevant)), "the number of matches": bench.scored.matches.sum(1)}
    for name, scores in untrained.items():
        print(row(f"ranked by {name}", [bench.ranking(scores)]))


def row(name: str, found: list[dict[str, float]]) -> str:
    """Returns a row of the table: mean and standard deviation over the seeds."""
    cells = []
    for key in ("mrr", "p@1", "accuracy"):
        values = [100 * one[key] for one in found if key in one]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "")
    return f"| {name} | {' | '.join(cells)} |"
