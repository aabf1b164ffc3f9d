"""The comparison of all models of a run."""

from components.report.component import Comparison, ComparedModel, Report

__all__ = ["ComparedModel", "Comparison", "Report"]
