"""What one training needs."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingConfig:
    """What one training needs; travels as JSON in the custom_config of a Trainer."""

    name: str  # the node's name, for messages
    role: str  # teacher, baseline or student
    task: str  # import path of the task module
    label: str
    hyperparameters: dict[str, Any]
    epochs: int
    batch_size: int
    seed: int
    optimizer: dict[str, Any]  # name, learning_rate, schedule
    strategy: dict[str, Any]  # arguments of make_strategy
    loop: str = "fit"
    checkpoints: dict[str, Any] = field(default_factory=lambda: {"every_steps": 500, "keep": 2})
    restarts: dict[str, Any] = field(default_factory=lambda: {"most": 3, "back_off_seconds": 1.0})
    checkpoint_folder: str | None = None  # of all trainings of this name; None: no checkpoints
    head: str = "classification"
    builder: str = "build_student"  # name of the task's function that builds this network
    label_smoothing: float = 0.0
    augment: bool = False
    shard: dict[str, int] | None = None  # index, of: the part of the train split that this model sees
    omit_classes: list[int] = field(default_factory=list)
    hidden_layers: list[str] = field(default_factory=list)  # to export, for hints
    distillation: dict[str, Any] | None = None  # settings of Distillation and of the ensemble; None: hard labels only
    # Set by the distillation Trainer. Either the teachers, as SavedModel folders, or their cached soft targets.
    teachers: list[str] = field(default_factory=list)
    soft_targets: str | None = None
    transfer_files: list[str] = field(default_factory=list)  # patterns of examples without labels
    code: str = ""  # fingerprint of the code, here so that TFX's cache sees a change of it
