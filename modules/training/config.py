"""What one training needs, as it travels from the pipeline to the process that trains.

A `TrainingConfig` is made of the sections of the settings. Its JSON (`model_dump(mode="json")`) is the custom_config of
a Trainer and is part of the job file of a cluster; `model_validate` checks it there by the same rules.
"""

import hashlib
import json
import os
from typing import TYPE_CHECKING

from stillhouse.modules.cluster.spec import STAGES
from stillhouse.modules.settings import (
    CLUSTER_STRATEGIES,
    Fold,
    Hint,
    Ingestion,
    Section,
    Shard,
    Share,
    Start,
    Temperature,
    TrainingSettings,
    WeightedEnsemble,
)

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs

# Settings that decide where and how a training job runs, but not its result.
WHERE_IT_RUNS = {"strategy", "loop", "checkpoints", "restarts", "checkpoint_folder"}


class DistillationConfig(Section):
    """How a student learns from its teachers: the settings with every default decided, and the ensemble."""

    objective: str  # a name in settings.OBJECTIVES, or the import path of a function
    temperature: Temperature
    alpha: Share
    hints: list[Hint] = []
    head_per_teacher: bool = False
    ensemble: WeightedEnsemble
    code: str = ""  # fingerprint of the objective's, if it is a user's own; for TFX's cache


class MaskingConfig(Section):
    """Masking of a pre-training job, whose label is the feature with the token ids."""

    share: float  # fraction of the tokens that is masked
    label: str  # the task's, of no use here: examples without it are as good


class Matched(Section):
    """The updates of the student that a baseline makes too; its epochs are the student's.

    With n labelled examples, m in `matched_files` and batches of b they are epochs · ⌈n / b⌉, or, with others,
    epochs · ⌈(n + m) / b⌉; those of the student's first stage are first_epochs · ⌈(n + m) / b⌉ besides.
    """

    batch_size: int  # b, the student's
    with_others: bool = False
    first_epochs: int = 0


class TrainingConfig(TrainingSettings):
    """What one training needs."""

    name: str  # the node's name, for messages
    role: str  # teacher, baseline, student, or pretraining
    task: str  # import path of the task module
    label: str
    head: str = "classification"
    builder: str = "build_student"  # name of the task's function that builds this network
    ingestion: Ingestion = Ingestion()
    checkpoint_folder: str | None = None  # of all trainings of this name; None: no checkpoints
    shard: Shard | None = None  # the part of the train split that this model sees; None: all
    held_out: Fold | None = None  # labelled examples that this model does not see; None: it sees all
    omit_classes: list[int] = []
    # None: start at what was pushed last, if there is a fn_args.base_model, or at random.
    start: Start | None = None
    masking: MaskingConfig | None = None  # None: no masked language modelling
    hidden_layers: list[str] = []  # to export, for hints
    distillation: DistillationConfig | None = None  # None: hard labels only
    # Set by the distillation Trainer. Either the teachers, as SavedModel folders, or their cached soft targets.
    teachers: list[str] = []
    soft_targets: str | None = None
    transfer_files: list[str] = []  # patterns of examples without labels
    updates: int | None = None  # in all epochs together; None: each epoch is one pass
    matched: Matched | None = None  # another way to say it
    matched_files: list[str] = []  # patterns of the examples that only the student learns from
    code: str = ""  # fingerprint of the code, here so that TFX's cache sees a change of it

    @property
    def heads(self) -> int:
        """How many heads its network has: one for each teacher, or one."""
        learning = self.distillation
        return len(learning.ensemble.weights) if learning and learning.head_per_teacher else 1

    @property
    def cluster_kind(self) -> str | None:
        """The kind of the training job's cluster: the strategy's name, or STAGES; None: a single process."""
        if self.parallelism.processes:
            return STAGES
        return self.strategy.name if self.strategy.name in CLUSTER_STRATEGIES else None


def first_stage_of(student: str) -> str:
    """Returns the name of a student's first stage, on soft targets alone."""
    return f"{student}.pretraining"


def validation_patterns(fn_args: "FnArgs") -> list[str]:
    """Returns those patterns of `fn_args.eval_files` that are of the validation split; TFX hands over both splits."""
    return [pattern for pattern in fn_args.eval_files if is_of_validation(pattern)]


def eval_patterns(fn_args: "FnArgs") -> list[str]:
    """Returns those patterns of `fn_args.eval_files` that are not of the validation split."""
    return [pattern for pattern in fn_args.eval_files if not is_of_validation(pattern)]


def is_of_validation(pattern: str) -> bool:
    """Returns whether a pattern of example files is of the validation split, by TFX's name for a split's folder."""
    return os.path.basename(os.path.dirname(pattern)) == "Split-validation"


def identity_of(config: TrainingConfig, fn_args: "FnArgs") -> str:
    """Returns a fingerprint of all that decides a training job's result: settings, code, files, but not its place."""
    decisive = config.model_dump(mode="json", exclude=WHERE_IT_RUNS)
    decisive["files"] = [
        *fn_args.train_files,
        *validation_patterns(fn_args),
        fn_args.transform_graph_path,
        *filter(None, [fn_args.base_model]),
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
