"""What a teacher says about unlabelled examples, filtered and balanced, as the targets of a student."""

from stillhouse.components.pseudo_labels.component import PseudoLabels

__all__ = ["PseudoLabels"]
