"""The second part of a training job: network, initial weights, optimiser and teachers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.cluster.strategies import is_asynchronous
from stillhouse.modules.distillation.annealing import value_at
from stillhouse.modules.distillation.head_per_teacher import with_heads
from stillhouse.modules.distillation.hints import Hints
from stillhouse.modules.distillation.objectives import find_objective
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.soft_targets import SoftTargetsCard
from stillhouse.modules.large_models.fitting import prepared
from stillhouse.modules.large_models.parallelism import Stages, micro_batches_of, plan_stages
from stillhouse.modules.models.export import class_names
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.task import build_model
from stillhouse.modules.models.teachers import (
    LOGITS,
    Teacher,
    check_widths,
    load_teachers,
    predict_targets,
    target_shapes,
)
from stillhouse.modules.models.weights import copy_weights, last_pushed, pretrained
from stillhouse.modules.training.checks import check_classes, check_labels, check_validation
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.learner import Distillation, Learner
from stillhouse.modules.training.optimizer import make_optimizer
from stillhouse.modules.training.plan import TrainingPlan
from stillhouse.modules.training.precision import layers_compute_in, with_loss_scale


@dataclass(frozen=True)
class BuiltTraining:
    """What is trained, on the devices of the plan's strategy."""

    network: keras.Model
    learner: Learner  # compiled
    stages: Stages | None  # None: the network is in one piece
    warm_started: bool  # from what was pushed last


def build_network(plan: TrainingPlan) -> keras.Model:
    """Returns the task's network for a training job, with its builder's weights."""
    config, label = plan.config, plan.config.label
    features = {name: spec for name, spec in plan.feature_spec.items() if name != label}
    if plan.masking:
        features |= plan.masking.specs(plan.feature_spec[label])
    masked = plan.masking is not None
    network = build_model(config.task, config.builder, config.hyperparameters, features, masked=masked)
    return with_heads(network, config.heads) if config.heads > 1 else network


def build_training(plan: TrainingPlan) -> BuiltTraining:
    """Returns the network of a plan with all that its updates need.

    Raises:
      UserError: the network does not fit the labels, the teachers, the stages or what it is to start from.
    """
    config, strategy = plan.config, plan.strategy

    def network_to_train() -> keras.Model:
        with layers_compute_in(config.precision):
            return build_network(plan)

    start = _start(plan)
    with strategy.scope(), tf.variable_creator_scope(_assignable_in_replicas):
        optimizer = make_optimizer(config.optimizer, plan.steps_per_epoch * config.epochs)
        optimizer = with_loss_scale(optimizer, config.precision)
    stages = _stages(plan, network_to_train) if plan.stage_devices else None
    with stages.variables_on_stages() if stages else nullcontext(), strategy.scope():
        network = network_to_train()
    with strategy.scope():
        scans = [plan.data.train_labels, plan.data.eval_labels, plan.data.validation_labels]
        check_labels(config, network, *filter(None, scans))
        transform = tft.TFTransformOutput(plan.fn_args.transform_graph_path)
        names = class_names(transform, config.label)
        check_classes(config, network, names)
        check_validation(config, plan.data, names)
        if start:
            copy_weights(start, network)
        learner = _learner(plan, network, stages)
        learner.compile(optimizer=optimizer, steps_per_execution=plan.steps_per_call)
    return BuiltTraining(network, learner, stages, warm_started=start is not None and not config.start)


def _start(plan: TrainingPlan) -> keras.Model | None:
    """Returns a network with the training job's initial weights; None: the builder's."""
    config, fn_args = plan.config, plan.fn_args
    if config.start:
        return pretrained(fn_args.base_model, config.name, lambda: build_network(plan), config.start.layers)
    return last_pushed(fn_args.base_model, config.name, lambda: build_network(plan), fn_args.transform_graph_path)


def _assignable_in_replicas(next_creator, **settings):
    # Keras assigns a schedule's learning rate, the same, in every replica; CentralStorage must know whose counts.
    return next_creator(**settings | {"aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA})


def _stages(plan: TrainingPlan, build: Callable[[], keras.Model]) -> Stages:
    config = plan.config
    micro_batches = micro_batches_of(config.parallelism, config.batch_size, plan.data.examples)
    stages = plan_stages(build, config.parallelism, micro_batches, config.batch_size, plan.stage_devices, config.name)
    keras.utils.set_random_seed(config.seed)  # the same weights as in one piece
    return stages


def _learner(plan: TrainingPlan, network: keras.Model, stages: Stages | None) -> Learner:
    config = plan.config
    teachers = load_teachers(config.teachers, plan.head)
    distillation = None
    if config.distillation:
        distillation = make_distillation(config, network, teachers, plan.data.parser.card)
    return Learner(
        network,
        plan.head,
        distillation,
        (lambda features: predict_targets(teachers, features)) if teachers else None,
        config.label_smoothing,
        micro_batches=config.memory.micro_batches,
        prepare_forward=lambda forward: prepared(forward, config.memory, plan.examples_passing, config.name),
        make_pipeline=(lambda forward: stages.pipeline(forward, config.name)) if stages else None,
        reports_staleness=is_asynchronous(plan.strategy),
    )


def make_distillation(
    config: TrainingConfig, network: keras.Model, teachers: list[Teacher], card: SoftTargetsCard | None
) -> Distillation:
    """Returns how the student learns, from the settings in `config.distillation`.

    Args:
      config: of the training.
      network: the student.
      teachers: online teachers; [] with cached soft targets.
      card: of the cached soft targets.

    Raises:
      UserError: teachers or hints do not fit the student.
    """
    settings = config.distillation
    assert settings, "only a training that distils has teachers or soft targets"
    ensemble = settings.ensemble
    width = HEADS[config.head].width(network.output_shape[-1] // config.heads)
    if card:
        count, outputs = card.shapes[LOGITS]
        check_widths(dict.fromkeys(card.teachers, outputs), width)
        shapes = card.shapes
    else:
        count = len(teachers)
        check_widths({teacher.name: teacher.outputs for teacher in teachers}, width)
        shapes = target_shapes(teachers) if teachers else {}
    if len(ensemble.weights) != count:
        raise UserError(f"{config.name}: found {count} teachers; expected {len(ensemble.weights)}, one per weight")
    return Distillation(
        objective=find_objective(settings.objective, config.head),
        weights=ensemble.weights,
        combination=ensemble.combination,
        alpha=value_at(settings.alpha, 0, config.epochs),
        temperature=value_at(settings.temperature, 0, config.epochs),
        hints=Hints(settings.hints, network, shapes) if settings.hints else None,
        head_per_teacher=config.heads > 1,
    )
