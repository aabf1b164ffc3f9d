"""N teachers as one servable model."""

from components.ensemble.component import Ensemble

__all__ = ["Ensemble"]
