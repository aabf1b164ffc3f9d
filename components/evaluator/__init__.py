"""The evaluation of all models of the comparison, by TFMA."""

from stillhouse.components.evaluator.component import Evaluator

__all__ = ["Evaluator"]
