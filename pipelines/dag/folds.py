"""Fold teachers: each teacher once more per fold, trained on the labelled examples that are not in the fold.

They are asked about the fold's examples, and are neither evaluated nor part of the ensemble.
"""

from tfx.types import BaseChannel

from stillhouse.modules.settings import Fold, Settings, Training
from stillhouse.pipelines.dag.nodes import Dag


def fold_names(settings: Settings, teacher: str) -> list[str]:
    """Returns the names of the nodes of a teacher's fold teachers, by fold; empty without folds."""
    folds = settings.student.distillation.folds or 0
    return [f"{teacher}.fold-{number}" for number in range(1, folds + 1)]


def add_fold_teachers(dag: Dag, name: str, teacher: Training, hidden_layers: list[str]) -> list[BaseChannel]:
    """Adds the fold teachers of a teacher and returns their models, by fold."""
    names = fold_names(dag.settings, name)
    configs = (
        dag.config(
            fold_name,
            "teacher",
            teacher,
            held_out=Fold(index=index, of=len(names)),
            hidden_layers=hidden_layers,
        )
        for index, fold_name in enumerate(names)
    )
    return [dag.trainer(config, dag.start_of(config.name, teacher)) for config in configs]
