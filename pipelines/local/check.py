"""Checks before a run: everything that can be known without running."""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.distillation.objectives import find_objective
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.compact import check_top
from stillhouse.modules.ingestion.views import check_changes
from stillhouse.modules.large_models.check import check_network
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.imported import saved_width
from stillhouse.modules.models.layers import layer_output
from stillhouse.modules.models.task import build_model, find_augment, load_task
from stillhouse.modules.models.teachers import check_widths
from stillhouse.modules.settings import InputChanges, Pretraining, Settings, Training
from stillhouse.pipelines.dag.create import saved_teachers
from stillhouse.pipelines.local.data_check import check_data, check_evaluation_columns, check_transfer
from stillhouse.pipelines.local.paths import saved_models
from stillhouse.pipelines.local.push_check import check_push


def check_settings(settings: Settings) -> None:
    """Checks all that can be checked without running: data files and label column, push folder, task module.

    Raises:
      UserError: the first thing that is not as the settings say.
    """
    check_evaluation_columns(check_data(settings.data), settings.evaluation)
    check_transfer(settings.data)
    check_push(settings)
    load_task(settings.task)
    head, existing = HEADS[settings.head], saved_teachers(settings, saved_models(settings))
    find_objective(settings.objective, settings.head)
    if any(training.augment for training in [*settings.trainings(), settings.baseline_training()]):
        find_augment(settings.task)

    def built(training: Training, model_name: str) -> keras.Model:
        masked = isinstance(training, Pretraining)
        model = build_model(settings.task, settings.builder_of(training), training.hyperparameters, masked=masked)
        check_network(model, training.memory, training.parallelism, model_name)
        return model

    pretrained = {name: built(pretraining, f"Pretraining.{name}") for name, pretraining in settings.pretraining.items()}
    for name, pretraining in settings.pretraining.items():
        if pretraining.distillation:
            for hint in pretraining.distillation.hints:
                layer_output(
                    pretrained[pretraining.distillation.teacher], hint.teacher_layer, pretraining.distillation.teacher
                )
                layer_output(pretrained[name], hint.student_layer, name)
    student = built(settings.student, "Student")
    teachers: dict[str, keras.Model | None] = {}  # a kind is built once, whatever the number of its copies
    for teacher in settings.teachers:
        model = None if teacher.saved_model else built(teacher, f"Teacher-{len(teachers) + 1}")
        for _ in range(teacher.copies):
            teachers[f"Teacher-{len(teachers) + 1}"] = model
    widths = {
        name: saved_width(existing[name], head) if model is None else head.width(model.output_shape[-1])
        for name, model in teachers.items()
    }
    _check_input_changes(settings, [student, *teachers.values()])
    width = head.width(student.output_shape[-1])
    check_widths(widths, width)
    check_top(settings.student.distillation.targets_top, width)
    _check_omitted(settings.student.omit_classes, width)
    for hint in settings.student.distillation.hints:
        name = f"Teacher-{hint.teacher}"
        layer_output(teachers[name], hint.teacher_layer, name)
        layer_output(student, hint.student_layer, "the student")


def _check_input_changes(settings: Settings, models: list[keras.Model | None]) -> None:
    """Raises UserError if a change of training inputs does not fit the features that the networks read."""
    existing = [model for model in models if model is not None]
    if len(existing) < len(models):  # a saved_model, which may read other features
        return
    kinds = {
        name: tf.as_dtype(tensor.dtype)
        for model in existing
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    owners: dict[str, InputChanges] = {f"teachers[{n}]": teacher for n, teacher in enumerate(settings.teachers)}
    owners |= {"student": settings.student, "baseline": settings.baseline_training()}
    for owner, training in owners.items():
        check_changes(training.input_changes(), kinds, f"{owner}.")


def _check_omitted(classes: list[int], width: int) -> None:
    """Raises UserError if classes are omitted that the student does not have, or all of them."""
    unknown = [number for number in classes if number >= width]
    if unknown:
        raise UserError(
            f"student.omit_classes: found {unknown[0]}; expected class ids below {width}, the student's width"
        )
    if len(classes) == width:
        raise UserError(f"student.omit_classes: found all {width} classes; nothing would be left to learn; remove some")
