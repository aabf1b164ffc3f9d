"""All gates in one ModelBlessing."""

from stillhouse.components.blessing.component import Blessing

__all__ = ["Blessing"]
