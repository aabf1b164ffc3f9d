"""The settings file as pydantic models: the one place where a setting is named, typed, documented, defaulted."""

from stillhouse.modules.settings.data import Data, Fold, Ingestion, Shard, Shift
from stillhouse.modules.settings.distillation import MASKED, OBJECTIVES, Hint, Schedule, Share, Student, Temperature
from stillhouse.modules.settings.evaluation import (
    BINARY_METRICS,
    RANKING_METRICS,
    REPORTED_METRICS,
    BaselineGate,
    Evaluation,
    PushedGate,
    TeacherGate,
)
from stillhouse.modules.settings.input_changes import InputChanges
from stillhouse.modules.settings.kubeflow import Kubeflow, Mlflow, Resources, Storage
from stillhouse.modules.settings.loading import apply_override, load_settings, parse_settings
from stillhouse.modules.settings.pipeline import Settings
from stillhouse.modules.settings.pretraining import Pretraining
from stillhouse.modules.settings.scaling import (
    CLUSTER_STRATEGIES,
    Checkpoints,
    Memory,
    Parallelism,
    Restarts,
    Strategy,
)
from stillhouse.modules.settings.section import Section
from stillhouse.modules.settings.training import Optimizer, Start, Training, TrainingSettings, WeightedEnsemble

__all__ = [
    "BINARY_METRICS",
    "CLUSTER_STRATEGIES",
    "MASKED",
    "OBJECTIVES",
    "RANKING_METRICS",
    "REPORTED_METRICS",
    "BaselineGate",
    "Checkpoints",
    "Data",
    "Evaluation",
    "Fold",
    "Hint",
    "Ingestion",
    "InputChanges",
    "Kubeflow",
    "Memory",
    "Mlflow",
    "Optimizer",
    "Parallelism",
    "Pretraining",
    "PushedGate",
    "Resources",
    "Restarts",
    "Schedule",
    "Section",
    "Settings",
    "Shard",
    "Share",
    "Shift",
    "Start",
    "Storage",
    "Strategy",
    "Student",
    "TeacherGate",
    "Temperature",
    "Training",
    "TrainingSettings",
    "WeightedEnsemble",
    "apply_override",
    "load_settings",
    "parse_settings",
]
