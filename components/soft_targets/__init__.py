"""What the teachers say about every example, written once."""

from stillhouse.components.soft_targets.component import SoftTargets
from stillhouse.components.soft_targets.views import ViewsOfExamples

__all__ = ["SoftTargets", "ViewsOfExamples"]
