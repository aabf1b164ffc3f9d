"""Trainer of a student that consumes any number of teachers."""

from stillhouse.components.distillation_trainer.component import DistillationTrainer

__all__ = ["DistillationTrainer"]
