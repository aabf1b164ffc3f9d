"""The exported student, asked by raw examples in a fresh process."""

from stillhouse.components.serving_check.component import ServingCheck

__all__ = ["ServingCheck"]
