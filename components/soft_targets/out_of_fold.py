"""Asks each example of the teachers of its fold."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from stillhouse.modules.ingestion.folds import fold_of

Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]  # serialized examples, string [batch] -> {target: [batch, ...]}


def paths_by_fold(paths: Sequence[str], folds: int) -> list[list[str]]:
    """Returns for each fold the paths of its teachers, from those of teacher 1's folds, teacher 2's, ..."""
    return [list(paths[fold::folds]) for fold in range(folds)]


def by_fold(answers: Sequence[Answer]) -> Answer:
    """Returns the function that answers each example by its fold's function, in the examples' order."""
    if len(answers) == 1:
        return answers[0]

    def answer(records):
        folds = fold_of(records, len(answers)).numpy()
        rows = [np.flatnonzero(folds == fold) for fold in range(len(answers))]
        parts = [ask(tf.gather(records, own)) for ask, own in zip(answers, rows, strict=True) if len(own)]
        order = np.argsort(np.concatenate(rows))
        return {name: tf.gather(tf.concat([part[name] for part in parts], axis=0), order) for name in parts[0]}

    return answer
