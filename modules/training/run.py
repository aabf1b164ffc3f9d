"""The third part of a training job: its epochs, from the last checkpoint or the beginning."""

import os
from dataclasses import dataclass

import tensorflow as tf

from stillhouse.modules import progress
from stillhouse.modules.cluster.spec import is_chief
from stillhouse.modules.cluster.strategies import is_asynchronous
from stillhouse.modules.distillation.annealing import Annealing
from stillhouse.modules.ingestion.service import input_service
from stillhouse.modules.training.build import BuiltTraining
from stillhouse.modules.training.checkpoints import Checkpoints, StepCheckpoints
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.data import make_datasets
from stillhouse.modules.training.event_files import EventFiles
from stillhouse.modules.training.loop import Steps, run_custom, run_fit
from stillhouse.modules.training.plan import TrainingPlan
from stillhouse.modules.training.report import EpochReport, EpochSize, draw_step
from stillhouse.modules.training.soft_term import SoftTerm
from stillhouse.modules.training.validation import Validation, has_ended


@dataclass(frozen=True)
class Outcome:
    """What a training job has come to."""

    history: dict[str, list[float]]  # {metric: [value of each epoch]}
    validation: Validation | None  # with the best epoch's weights; None: no validation split


def run_training(plan: TrainingPlan, built: BuiltTraining) -> Outcome:
    """Trains the network in place.

    Raises:
      UserError: the loss is no longer a number, or the checkpoints are those of another model.
    """
    config, data, strategy, learner = plan.config, plan.data, plan.strategy, built.learner
    validation = Validation(plan, built) if data.validation_files else None
    checkpoints = _checkpoints(plan, built, validation)
    if validation:
        validation.history = checkpoints.history
    if checkpoints.step:
        progress.note(f"{config.name}: resuming at step {checkpoints.step} of {plan.steps_per_epoch * config.epochs}")
    run = run_custom if config.loop == "custom" else run_fit
    if has_ended(checkpoints.history, plan.head.quality, config.early_stopping):
        return Outcome(checkpoints.history, validation)
    with input_service(data.options.service_workers) as service:
        run(
            Steps(
                learner=learner,
                strategy=strategy,
                datasets=make_datasets(config, data, strategy, plan.change, plan.cluster, service),
                first=checkpoints.step,
                per_epoch=plan.steps_per_epoch,
                per_call=plan.steps_per_call,
                epochs=config.epochs,
                callbacks=_callbacks(plan, checkpoints, validation),
            )
        )
    if built.stages:
        datasets = make_datasets(config, data, strategy, plan.change, plan.cluster)
        draw_step(config, learner, built.stages, datasets, plan.fn_args.model_run_dir)
    return Outcome(checkpoints.history, validation)


def _checkpoints(plan: TrainingPlan, built: BuiltTraining, validation: Validation | None) -> Checkpoints:
    """Returns the checkpoints of the training job, with the newest restored."""
    config, asynchronous = plan.config, is_asynchronous(plan.strategy)

    def settle():
        if asynchronous:
            tf.distribute.coordinator.ClusterCoordinator(plan.strategy).join()

    within_epochs = config.loop == "custom" or not asynchronous
    make_checkpoints = StepCheckpoints if within_epochs else Checkpoints
    folder = os.path.join(config.checkpoint_folder, plan.identity) if config.checkpoint_folder else None
    with plan.strategy.scope():
        return make_checkpoints(
            built.learner,
            folder,
            plan.identity,
            plan.steps_per_epoch,
            config.checkpoints,
            plan.cluster,
            settle,
            validation.state if validation else {},
        )


def _callbacks(plan: TrainingPlan, checkpoints: Checkpoints, validation: Validation | None) -> list:
    config, steps = plan.config, plan.steps_per_epoch
    size = EpochSize(plan.examples_per_epoch, steps, batches_of_each(plan.strategy, config, steps))
    callbacks: list = [EpochReport(config.name, config.epochs, size, validation)]
    if validation:
        callbacks.insert(0, validation)  # its figures are reported, and saved
    # Not in a cluster, nor where the network is on several devices in pieces, which hold no more than that.
    if config.distillation and plan.cluster is None and not plan.stage_devices and not plan.masking:
        callbacks.append(SoftTerm(plan, checkpoints.history))
    callbacks.append(checkpoints)
    if is_chief(plan.cluster):
        callbacks.append(EventFiles(plan.fn_args.model_run_dir, config))
    if config.distillation:
        callbacks.insert(0, Annealing(config.distillation.alpha, config.distillation.temperature, config.epochs))
    return callbacks


def batches_of_each(strategy: tf.distribute.Strategy, config: TrainingConfig, steps: int) -> int:
    """Returns how many batches each input pipeline gives in `steps` updates, all of them at the same time."""
    if is_asynchronous(strategy):
        return -(-steps // (config.strategy.workers or 1))
    pipelines = config.strategy.workers or 1  # None: not a strategy of several processes
    return steps * strategy.num_replicas_in_sync // pipelines
