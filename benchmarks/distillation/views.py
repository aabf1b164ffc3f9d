"""What K cached views of every example give: python -m benchmarks.distillation.views --seeds 5.

digits with 100 labelled examples; the others of the train split are unlabelled, or left out with --no-transfer. The
teachers learn from the labelled ones; the student learns without views, from 1, 2, 4, 8 and 16 cached views, and from
online teachers, with the same number of updates each. Noise and mixup were not tuned; every accuracy is of the eval
split.
"""

import json
import statistics
import tempfile
from pathlib import Path

import typer

LABELLED = 100
KS = (1, 2, 4, 8, 16)
CHANGES = {"noise": 0.3, "mixup": 1.0}
TEACHERS, TEACHER_EPOCHS = 2, 150
WIDTH, EPOCHS, EPOCHS_ALONE = 32, 60, 690  # 1,380 updates each
TEMPERATURE, ALPHA = 1.0, 0.7  # digits' (choose.py)


def split_off(task, folder: Path, seed: int) -> Path:
    """Writes Split-train with the labelled examples and Split-transfer with the others; returns their folder."""
    import numpy as np
    import tensorflow as tf

    records = list(tf.data.TFRecordDataset(task.train.files, "GZIP").as_numpy_iterator())
    order = np.random.RandomState(seed).permutation(len(records))
    for split, rows in (("train", order[:LABELLED]), ("transfer", order[LABELLED:])):
        path = folder / f"Split-{split}" / "examples.gz"
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for row in rows:
                example = tf.train.Example.FromString(records[row])
                if split == "transfer":
                    del example.features.feature[task.settings.data.label]
                writer.write(example.SerializeToString())
    return folder


def run_seed(task, folder: Path, seed: int, transfer: bool) -> dict[str, dict]:
    """Returns, by way, accuracy, milliseconds of a step and bytes of the cache, of one seed."""
    from benchmarks import as_in_pipeline
    from benchmarks.distillation import experiment as ex
    from stillhouse.components.soft_targets import ViewsOfExamples
    from stillhouse.modules.ingestion.soft_targets import read_soft_targets_card
    from stillhouse.modules.models.export import export_network
    from stillhouse.modules.models.serving import size_in_bytes
    from stillhouse.modules.training.train import train

    settings = task.settings
    examples = split_off(task, folder / "examples", seed)
    labelled = ex.Split(examples / "Split-train")
    exported = [folder / f"teacher-{number}" for number in range(TEACHERS)]
    scores = []
    for number, uri in enumerate(exported):
        of = settings.teachers[0]
        config = ex.config_of(task, of, "teacher", 1000 * seed + number, epochs=TEACHER_EPOCHS, mixup=0.5)
        teacher = ex.trained(task, labelled, config)
        scores.append(ex.logits(task, teacher, task.evaluation))
        card = {"name": f"Teacher-{number + 1}", "role": "teacher"}
        export_network(teacher, task.transform, settings.data.label, str(uri / "Format-Serving"), card)
    results = {"ensemble": {"accuracy": ex.accuracy(task, ex.mean_distribution(scores), task.evaluation)}}

    def student(way: str, **more) -> None:
        config = ex.config_of(
            task,
            settings.student,
            "student",
            seed,
            epochs=EPOCHS if transfer else EPOCHS_ALONE,
            hyperparameters={"width": WIDTH},
            distillation=ex.distillation_of(TEACHERS, TEMPERATURE, ALPHA),
            transfer_files=[str(examples / "Split-transfer" / "*")] if transfer else [],
            **more,
        )
        network, card = train(config, ex.fn_args(task, labelled))
        accuracy = ex.accuracy(task, ex.logits(task, network, task.evaluation), task.evaluation)
        speed = card["examples_per_second"]
        folder = more.get("soft_targets")
        results[way] = {
            "accuracy": accuracy,
            "ms": 1000 * config.batch_size / speed,
            "bytes": size_in_bytes(folder) if folder else 0,
            "records": read_soft_targets_card(folder).examples if folder else 0,
        }

    for count in (None, *KS):
        views = ViewsOfExamples(**CHANGES, count=count, seed=seed, task=settings.task) if count else None
        targets = as_in_pipeline.write_soft_targets(
            folder / f"targets-{count}", task.graph, settings.data.label, exported, examples, transfer, views
        )
        student(f"{count} cached" if count else "no views", soft_targets=targets, **(CHANGES if count else {}))
    student("online", teachers=[str(uri / "Format-Serving") for uri in exported], **CHANGES)
    return results


def main(seeds: int = 5, transfer: bool = True) -> None:
    """Prints one line per seed, and the table."""
    from benchmarks.distillation import experiment as ex

    ex.quiet()
    with tempfile.TemporaryDirectory() as folder:
        task = ex.prepare("digits", Path(folder))
        found = []
        for seed in range(1, seeds + 1):
            found.append(run_seed(task, Path(folder, f"seed-{seed}"), seed, transfer))
            print(json.dumps({"seed": seed, **found[-1]}), flush=True)
    print("| way | accuracy (%), mean ± standard error | step (ms), median | views and targets on disk (kB) |")
    print("|---|---|---|---|")
    for way in found[0]:
        accuracies = [100 * each[way]["accuracy"] for each in found]
        error = statistics.stdev(accuracies) / len(found) ** 0.5 if len(found) > 1 else 0.0
        cells = [way, f"{statistics.mean(accuracies):.2f} ± {error:.2f}", "", ""]
        if "ms" in found[0][way]:
            cells[2] = f"{statistics.median(each[way]['ms'] for each in found):.2f}"
            cells[3] = f"{found[0][way]['bytes'] / 1000:,.0f}" if found[0][way]["bytes"] else ""
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    typer.run(main)
