"""The model that is being served, as an artifact."""

from stillhouse.components.last_pushed.component import LastPushed

__all__ = ["LastPushed"]
