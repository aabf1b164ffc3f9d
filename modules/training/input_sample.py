"""Inputs as a training job sees them, but the labelled and the unlabelled ones apart, outside of any strategy."""

from collections.abc import Iterator
from dataclasses import replace

import tensorflow as tf

from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.stream import Source
from stillhouse.modules.training.data import TrainingData, make_datasets
from stillhouse.modules.training.plan import TrainingPlan

# Name in the model card's `distillation`: the labelled examples of train, and those of data.transfer.
LABELLED, UNLABELLED = "labelled", "unlabelled"


def files_by_kind(data: TrainingData) -> dict[str, ExampleFiles]:
    """Returns the counted files of a training job by LABELLED and UNLABELLED; a kind without examples is left out."""
    files = {LABELLED: data.source.files, UNLABELLED: data.source.transfer}
    return {kind: own for kind, own in files.items() if own is not None and own.count}


def sampled_batches(plan: TrainingPlan, kind: str, examples: int, batch_size: int) -> Iterator[tuple]:
    """Yields batches (features, labels, targets) of one kind of input, augmented as in training.

    They are read from the files, once more, also where training has them in memory.

    Args:
      plan: of the training job.
      kind: LABELLED or UNLABELLED.
      examples: their number, rounded up to whole batches; at most those of one epoch.
      batch_size: of the batches.
    """
    files = files_by_kind(plan.data)[kind]
    labelled = kind == LABELLED
    source = plan.data.source
    own = replace(source, files=files, transfer=None) if labelled else Source(files)
    data = replace(plan.data, source=own, columns=None, workers=1)
    config = plan.config.model_copy(update={"batch_size": batch_size})
    datasets = make_datasets(config, data, tf.distribute.OneDeviceStrategy("/CPU:0"), plan.change)
    batches = datasets(0)(tf.distribute.InputContext())
    steps = -(-min(examples, files.count) // batch_size)
    for batch, _ in batches.take(steps):
        yield batch
