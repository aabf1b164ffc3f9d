"""Out-of-fold targets against those of teachers that have seen the examples: python -m benchmarks.distillation.folds.

Digits with few labels and with all, five seeds: the entropy of the soft targets, the teachers' accuracy on the examples
that they are asked about, and the student's on the eval split, on which nothing is chosen. Where there are fewer
examples there are more epochs, so that every model makes as many updates as with all labels.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
import typer

from benchmarks.distillation import experiment as ex
from stillhouse.modules.ingestion.examples import ExampleParser, labelled_batches
from stillhouse.modules.ingestion.files import ExampleFiles, split_folder
from stillhouse.modules.ingestion.soft_targets import read_soft_targets_card
from stillhouse.modules.models.teachers import LOGITS
from stillhouse.modules.settings import Training

ALPHAS = (0.5, 1.0)
COMPACT = (
    {},
    {"dtype": "float16"},
    {"dtype": "int8"},
    {"top": 5},
    {"top": 3},
    {"top": 3, "dtype": "float16"},
    {"top": 3, "dtype": "int8"},
)


def few(task: ex.Task, per_class: int, seed: int, folder: Path) -> ex.Split:
    """Returns a split with `per_class` examples of each class of the fit split, chosen by the seed."""
    records = list(tf.data.TFRecordDataset(task.fit.files, "GZIP").as_numpy_iterator())
    _, labels = task.read(task.fit)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "examples.gz"), "GZIP") as writer:
        for number in sorted(chosen):
            writer.write(records[number])
    return ex.Split(folder)


def trained(task: ex.Task, split: ex.Split, of: Training, role: str, seed: int, **changes) -> keras.Model:
    """Returns a network trained with as many updates as on the fit split."""
    steps, steps_of_all = (-(-len(task.read(part)[1]) // of.batch_size) for part in (split, task.fit))
    epochs = -(-of.epochs * steps_of_all // steps)
    return ex.trained(task, split, ex.config_of(task, of, role, seed, epochs=epochs, **changes))


def about_targets(task: ex.Task, split: ex.Split, targets: str) -> tuple[float, float]:
    """Returns the mean entropy of the teachers' mean distribution in nats, and its accuracy."""
    card = read_soft_targets_card(targets)
    spec = task.transform.transformed_feature_spec()
    parser = ExampleParser(spec, task.settings.data.label, ex.HEAD, card)
    files = ExampleFiles(split.files, split_folder(targets, "train"))
    _, labels, of = next(iter(labelled_batches(files, parser, 100_000)))
    p = tf.reduce_mean(tf.nn.softmax(tf.cast(of[LOGITS], tf.float64)), axis=1).numpy()
    entropy = -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=-1).mean()
    return float(entropy), float((p.argmax(axis=-1) == labels.numpy()).mean())


def print_compact(task: ex.Task, split: ex.Split, teachers: list[keras.Model], folder: Path) -> None:
    """Prints size and loss of compact targets."""
    print(
        "\n| dtype | largest logits | bytes of files | same class (%) | KL divergence (nats) |\n|---|---|---|---|---|"
    )
    for number, compact in enumerate(COMPACT):
        card = read_soft_targets_card(
            ex.write_soft_targets(task, split, teachers, folder / f"compact-{number}", **compact)
        )
        loss = card.compaction or {"agreement": 1.0, "kl": 0.0}
        print(
            f"| {card.dtype} | {card.top or 'all'} | {card.bytes['train']:,} | {100 * loss['agreement']:.2f} | "
            f"{loss['kl']:.1e} |",
            flush=True,
        )


def main(labels_per_class: int = 10, seeds: int = 5, teachers: int = 1, folds: int = 5, compact: bool = False) -> None:
    """Prints the table as Markdown; labels_per_class 0: all labels."""
    ex.quiet()
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = ex.prepare("digits", folder)
        kind, student = task.settings.teachers[0], task.settings.student
        for seed in range(1, seeds + 1):
            split = few(task, labels_per_class, seed, folder / f"few-{seed}") if labels_per_class else task.fit
            numbers = [1000 * seed + number for number in range(teachers)]
            full = [trained(task, split, kind, "teacher", number) for number in numbers]
            held_out = [
                [
                    trained(task, split, kind, "teacher", number, held_out={"index": fold, "of": folds})
                    for number in numbers
                ]
                for fold in range(folds)
            ]
            scores = [ex.logits(task, teacher, task.evaluation) for teacher in full]
            values = {"ensemble, eval accuracy": ex.accuracy(task, ex.mean_distribution(scores), task.evaluation)}
            baseline = trained(task, split, student, "baseline", seed)
            values["baseline"] = ex.accuracy(task, ex.logits(task, baseline, task.evaluation), task.evaluation)
            for way, of_folds in (("none", []), (f"{folds}", held_out)):
                below = folder / f"targets-{seed}-{way}"
                targets = ex.write_soft_targets(task, split, full, below, of_folds)
                entropy, right = about_targets(task, split, targets)
                values |= {f"folds {way}: entropy (nats)": entropy, f"folds {way}: targets' accuracy": right}
                for alpha in ALPHAS:
                    learning = {"distillation": ex.distillation_of(teachers, 1.0, alpha), "soft_targets": targets}
                    network = trained(task, split, student, "student", seed, **learning)
                    scores_of = ex.logits(task, network, task.evaluation)
                    values[f"folds {way}: student, alpha {alpha:g}"] = ex.accuracy(task, scores_of, task.evaluation)
            for alpha in ALPHAS:
                none, out_of_fold = (values[f"folds {way}: student, alpha {alpha:g}"] for way in ("none", folds))
                values[f"student, alpha {alpha:g}: folds {folds} − none"] = out_of_fold - none
            for key, value in values.items():
                rows.setdefault(key, []).append(value)
            print(seed, values, flush=True)
            if compact and seed == 1:
                print_compact(task, split, full, folder)
    print(f"\n{labels_per_class or 'all'} labels per class\n\n| | mean ± standard error of {seeds} seeds |\n|---|---|")
    for key, found in rows.items():
        scale = 1 if "entropy" in key else 100
        error = statistics.stdev(found) / len(found) ** 0.5
        print(f"| {key} | {scale * statistics.mean(found):.3f} ± {scale * error:.3f} |")


if __name__ == "__main__":
    typer.run(main)
