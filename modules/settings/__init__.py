"""The settings file as pydantic models: the one place where a setting is named, typed, documented, defaulted."""

from stillhouse.modules.settings.data import Data, Ingestion
from stillhouse.modules.settings.distillation import OBJECTIVES
from stillhouse.modules.settings.evaluation import (
    BINARY_METRICS,
    RANKING_METRICS,
    REPORTED_METRICS,
    PushedGate,
    TeacherGate,
)
from stillhouse.modules.settings.kubeflow import Kubeflow, Resources
from stillhouse.modules.settings.loading import load_settings, parse_settings
from stillhouse.modules.settings.pipeline import Settings
from stillhouse.modules.settings.pretraining import Pretraining
from stillhouse.modules.settings.scaling import Memory, Parallelism
from stillhouse.modules.settings.training import Training

__all__ = [
    "BINARY_METRICS",
    "OBJECTIVES",
    "RANKING_METRICS",
    "REPORTED_METRICS",
    "Data",
    "Ingestion",
    "Kubeflow",
    "Memory",
    "Parallelism",
    "Pretraining",
    "PushedGate",
    "Resources",
    "Settings",
    "TeacherGate",
    "Training",
    "load_settings",
    "parse_settings",
]
