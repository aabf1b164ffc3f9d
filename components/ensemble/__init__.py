"""N teachers as one servable model."""

from stillhouse.components.ensemble.component import Ensemble

__all__ = ["Ensemble"]
