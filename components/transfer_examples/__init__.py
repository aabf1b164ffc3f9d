"""Unlabelled examples, transformed."""

from stillhouse.components.transfer_examples.component import TransferExamples

__all__ = ["TransferExamples"]
