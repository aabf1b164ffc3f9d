"""What every model of a run answers for the eval examples, asked once."""

from stillhouse.components.predictions.component import Predictions

__all__ = ["Predictions"]
