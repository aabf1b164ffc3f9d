"""The node of the baseline: the student's network, trained without teachers."""

from tfx.types import BaseChannel

from stillhouse.modules.settings import Settings
from stillhouse.modules.training.config import Matched
from stillhouse.pipelines.dag.nodes import Dag


def add_baseline(dag: Dag, transfer: BaseChannel | None) -> BaseChannel:
    """The student's network, which learns without teachers; `transfer` are the student's unlabelled examples."""
    settings, student = dag.settings, dag.settings.baseline_training()
    # What a pre-training has learnt from a teacher, the baseline must not have.
    if student.start and settings.pretraining[student.start.pretraining].distillation:
        student = student.model_copy(update={"start": None})
    changes: dict = {"omit_classes": settings.student.omit_classes, "updates": settings.baseline.updates}
    if settings.baseline.updates is None and settings.baseline.epochs is None:
        changes["matched"] = matched_updates(settings)
    config = dag.config("Baseline", "baseline", student, **changes)
    start = dag.start_of("Baseline", student) if student.start else None
    if transfer and config.matched:
        return dag.distillation_trainer(config, start, transfer)
    return dag.trainer(config, start)


def matched_updates(settings: Settings) -> Matched:
    """Returns the number of the student's updates, in both stages together."""
    student = settings.student
    first = student.distillation.pretraining  # the one stage that has the unlabelled examples
    return Matched(
        batch_size=student.batch_size,
        with_others=settings.data.transfer is not None and first is None,
        first_epochs=first.epochs if first else 0,
    )
