"""The first part of a training job: all decisions and checks, before anything is built."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from stillhouse.modules.cluster import members
from stillhouse.modules.cluster.spec import ClusterSpec
from stillhouse.modules.cluster.strategies import is_asynchronous, make_strategy
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import first_batch
from stillhouse.modules.ingestion.stream import Change, steps_in
from stillhouse.modules.large_models.fitting import examples_passing
from stillhouse.modules.large_models.parallelism import stage_devices, strategy_of_stages
from stillhouse.modules.models.heads import HEADS, Head
from stillhouse.modules.models.teachers import LOGITS, Faults, Teacher, load_teachers, predict_targets
from stillhouse.modules.text.masking import Masking
from stillhouse.modules.training.changes import change_of, check_change, masking_of
from stillhouse.modules.training.checks import check_batches
from stillhouse.modules.training.config import TrainingConfig, identity_of
from stillhouse.modules.training.data import (
    TrainingData,
    decide_cache,
    feature_spec_of,
    read_data,
    updates_of,
)

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs

# Steps in one call of the compiled training loop. More of them save the way through Python, which is longer than a
# step of a small model; a Ctrl-C waits for the call to end.
MAX_STEPS_PER_EXECUTION = 32

# Of one of the student's epochs, in a baseline's training job.
MAX_PARTS = 10

# Of an epoch, at the least, where calls are handed out to workers.
CALLS_PER_WORKER = 8

# Number of examples on which online teachers are checked before training starts.
CHECKED_EXAMPLES = 1024


@dataclass(frozen=True)
class TrainingPlan:
    """What is decided before a network is built."""

    config: TrainingConfig  # with the cache decided
    fn_args: "FnArgs"
    identity: str  # fingerprint of the training job, for its checkpoints
    cluster: ClusterSpec | None  # None: a single process
    strategy: tf.distribute.Strategy
    stage_devices: list[list[str]]  # of each replica; []: the network is in one piece
    feature_spec: dict  # of the transformed features, the label's included
    data: TrainingData
    masking: Masking | None  # of a pre-training
    change: Change | None  # of each batch: the masking, or views of the inputs
    examples_passing: int  # through a replica's network at a time
    steps_per_epoch: int
    steps_per_call: int  # of the compiled loop

    @property
    def examples_per_epoch(self) -> int:
        """Number of examples in the updates of an epoch; more than there are where a baseline matches its student."""
        of_updates = self.config.updates is not None or self.config.matched is not None
        return self.steps_per_epoch * self.config.batch_size if of_updates else self.data.examples

    @property
    def head(self) -> Head:
        """What the network's outputs mean."""
        return HEADS[self.config.head]


def plan_training(config: TrainingConfig, fn_args: "FnArgs", cluster: ClusterSpec | None) -> TrainingPlan:
    """Returns the plan of a training job, after a scan of all its examples.

    Raises:
      UserError: labels, teachers, soft targets, batches or strategy do not fit together.
    """
    # Before any operation of TensorFlow: a cluster is joined here.
    devices = stage_devices(config.parallelism, cluster) if config.parallelism.stages > 1 else []
    strategy = strategy_of_stages(config.parallelism, devices) if devices else make_strategy(config.strategy, cluster)
    if cluster:
        members.check_versions(fn_args.model_run_dir, cluster)
    config = decide_cache(config, fn_args)
    feature_spec = feature_spec_of(config, fn_args)
    data = read_data(config, fn_args, feature_spec, cluster)
    check_change(config, data)
    check_batches(config, strategy, data.examples)
    whole_batches = isinstance(strategy, tf.distribute.TPUStrategy)
    steps = steps_in(data.examples, config.batch_size, whole_batches)
    updates = updates_of(config, data, whole_batches)
    if updates is not None:
        config, steps = divided(config, updates, own_steps=steps)
    masking = masking_of(config, data)
    plan = TrainingPlan(
        config=config,
        fn_args=fn_args,
        identity=identity_of(config, fn_args),
        cluster=cluster,
        strategy=strategy,
        stage_devices=devices,
        feature_spec=feature_spec,
        data=data,
        masking=masking,
        change=masking or change_of(config, data),
        examples_passing=examples_passing(config.batch_size, strategy, config.memory),
        steps_per_epoch=steps,
        steps_per_call=_steps_per_call(config, strategy, steps),
    )
    if config.teachers:
        _check_teachers(plan)
    return plan


def divided(config: TrainingConfig, updates: int, own_steps: int) -> tuple[TrainingConfig, int]:
    """Returns the configuration with epochs for so many updates, and the number of updates of each.

    Where one of the student's epochs is many passes over the examples of a baseline, it is cut into up to MAX_PARTS, so
    that validation can choose among more moments.

    Args:
      config: with the epochs of the student.
      updates: in all epochs together.
      own_steps: updates of a pass over the examples.
    """
    epochs = min(config.epochs, updates)
    steps = -(-updates // epochs)
    limit = max(1, min(MAX_PARTS, steps // own_steps))
    # All parts have the same length: so many that the number of updates grows least, or not at all.
    parts = min(range(limit, 1, -1), key=lambda parts: -(-steps // parts) * parts, default=1)
    stopping = config.early_stopping
    changes = {"epochs": epochs * parts, "early_stopping": stopping * parts if stopping else None}
    return config.model_copy(update=changes), -(-steps // parts)


def _steps_per_call(config: TrainingConfig, strategy: tf.distribute.Strategy, steps: int) -> int:
    steps_per_call = min(steps, MAX_STEPS_PER_EXECUTION)
    if is_asynchronous(strategy):  # a call is done by one worker; an epoch has to keep all of them busy
        return max(1, min(steps_per_call, steps // ((config.strategy.workers or 1) * CALLS_PER_WORKER)))
    return steps_per_call


def _check_teachers(plan: TrainingPlan) -> None:
    """Checks online teachers' predictions on the first examples, outside of any strategy."""
    config, head = plan.config, plan.head
    if is_asynchronous(plan.strategy):
        raise UserError(
            f"{config.name}: student.distillation.targets: online is not valid with parameter_server (TensorFlow loads "
            f"no teacher onto parameter servers); set cached"
        )
    batch = first_batch(plan.data.source.files.examples, plan.feature_spec, config.label, head, CHECKED_EXAMPLES)
    features, *_ = plan.masking(batch, tf.zeros([2], tf.int32)) if plan.masking else batch
    check_answers(load_teachers(config.teachers, head), features, head)


def check_answers(teachers: list[Teacher], features: dict[str, tf.Tensor], head: Head) -> None:
    """Checks what teachers say about some examples.

    Raises:
      UserError: a teacher says NaN, or probabilities.
    """
    faults = Faults([teacher.name for teacher in teachers], head)
    logits = predict_targets(teachers, features)[LOGITS].numpy()
    # Each masked position counts for itself.
    faults.count(np.moveaxis(logits, 2, 1).reshape(-1, len(teachers), logits.shape[-1]) if logits.ndim > 3 else logits)
    faults.refuse()
