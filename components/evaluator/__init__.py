"""The stock Evaluator, for a baseline that may not exist yet."""

from stillhouse.components.evaluator.component import Evaluator

__all__ = ["Evaluator"]
