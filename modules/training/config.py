"""What one training needs."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stillhouse.modules.cluster.strategies import OF_PROCESSES, STAGES

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


@dataclass(frozen=True)
class TrainingConfig:
    """What one training needs; travels as JSON in the custom_config of a Trainer."""

    name: str  # the node's name, for messages
    role: str  # teacher, baseline, student, or pretraining
    task: str  # import path of the task module
    label: str
    hyperparameters: dict[str, Any]
    epochs: int
    batch_size: int
    seed: int
    optimizer: dict[str, Any]  # name, learning_rate, schedule
    strategy: dict[str, Any]  # arguments of make_strategy
    loop: str = "fit"
    ingestion: dict[str, Any] = field(default_factory=dict)  # stillhouse.modules.ingestion.options.Options
    checkpoints: dict[str, Any] = field(default_factory=lambda: {"every_steps": 500, "keep": 2})
    memory: dict[str, Any] = field(default_factory=dict)  # stillhouse.modules.large_models.fitting.Memory
    parallelism: dict[str, Any] = field(default_factory=dict)  # stillhouse.modules.large_models.parallelism.Parallelism
    restarts: dict[str, Any] = field(default_factory=lambda: {"most": 3, "back_off_seconds": 1.0})
    checkpoint_folder: str | None = None  # of all trainings of this name; None: no checkpoints
    head: str = "classification"
    builder: str = "build_student"  # name of the task's function that builds this network
    precision: str = "float32"  # what its layers compute in, as stillhouse.modules.training.precision has it
    label_smoothing: float = 0.0
    augment: bool = False
    shard: dict[str, int] | None = None  # index, of: the part of the train split that this model sees
    omit_classes: list[int] = field(default_factory=list)
    # {"layers": {layer: layer of fn_args.base_model to start at}}, all others by their own names. None: start at what
    # was pushed last, if there is a base_model, or at random.
    start: dict[str, Any] | None = None
    # Of a pre-training, whose label is the feature with the ids: share that is masked, label (the task's, of no use).
    masking: dict[str, Any] | None = None
    hidden_layers: list[str] = field(default_factory=list)  # to export, for hints
    distillation: dict[str, Any] | None = None  # settings of Distillation and of the ensemble; None: hard labels only
    # Set by the distillation Trainer. Either the teachers, as SavedModel folders, or their cached soft targets.
    teachers: list[str] = field(default_factory=list)
    soft_targets: str | None = None
    transfer_files: list[str] = field(default_factory=list)  # patterns of examples without labels
    code: str = ""  # fingerprint of the code, here so that TFX's cache sees a change of it

    @property
    def heads(self) -> int:
        """How many heads its network has: one for each teacher, or one."""
        settings = self.distillation or {}
        return len(settings["weights"]) if settings.get("head_per_teacher") else 1

    @property
    def cluster_kind(self) -> str | None:
        """What the processes of the training are to each other: the strategy's name, or STAGES; None: it is one."""
        if self.parallelism.get("processes"):
            return STAGES
        return self.strategy["name"] if self.strategy["name"] in OF_PROCESSES else None


def identity_of(config: TrainingConfig, fn_args: "FnArgs") -> str:
    """Returns a fingerprint of all that decides what a training gives: settings, code, files, but not where it runs."""
    place = {"strategy", "loop", "checkpoints", "restarts", "checkpoint_folder"}
    told = {name: value for name, value in asdict(config).items() if name not in place}
    told["files"] = [*fn_args.train_files, fn_args.transform_graph_path, *filter(None, [fn_args.base_model])]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
