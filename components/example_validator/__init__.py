"""The stock ExampleValidator, whose anomalies stop the run."""

from stillhouse.components.example_validator.component import ExampleValidator

__all__ = ["ExampleValidator"]
