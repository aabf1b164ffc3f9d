"""What the teachers say about every example, written once."""

from stillhouse.components.soft_targets.component import SoftTargets

__all__ = ["SoftTargets"]
