"""The comparison of all models of a run."""

from stillhouse.components.report.component import ComparedModel, Comparison, Page, Report

__all__ = ["ComparedModel", "Comparison", "Page", "Report"]
