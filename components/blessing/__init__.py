"""All gates in one ModelBlessing."""

from components.blessing.component import Blessing

__all__ = ["Blessing"]
