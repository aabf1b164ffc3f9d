"""The comparison of all models of a run."""

from components.report.component import ComparedModel, Comparison, Report

__all__ = ["ComparedModel", "Comparison", "Report"]
