"""The stock DistributionValidator with thresholds from resampling, whose findings warn or stop the run."""

from stillhouse.components.distribution_validator.component import DistributionValidator

__all__ = ["DistributionValidator"]
