"""The settings file as pydantic models: the one place where a setting is named, typed, documented, defaulted."""

from pipelines.settings.data import Data, Ingestion
from pipelines.settings.distillation import OBJECTIVES
from pipelines.settings.evaluation import BINARY_METRICS, RANKING_METRICS, REPORTED_METRICS, PushedGate, TeacherGate
from pipelines.settings.kubeflow import Kubeflow, Resources
from pipelines.settings.loading import load_settings, parse_settings
from pipelines.settings.pipeline import Settings
from pipelines.settings.pretraining import Pretraining
from pipelines.settings.scaling import Memory, Parallelism
from pipelines.settings.training import Training

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
