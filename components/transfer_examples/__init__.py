"""Unlabelled examples, transformed."""

from components.transfer_examples.component import TransferExamples

__all__ = ["TransferExamples"]
