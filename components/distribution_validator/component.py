"""Compares the distribution of each feature with that of other examples: of earlier spans (drift), of train (skew)."""

from collections.abc import Mapping

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.distribution_validator.executor import DistributionValidatorParameters, Executor


class DistributionValidator(base_component.BaseComponent):
    """Writes ExampleAnomalies with the distance and threshold of each feature, as the stock DistributionValidator."""

    SPEC_CLASS = declare(
        "DistributionValidatorSpec",
        DistributionValidatorParameters,
        inputs={
            "examples": standard_artifacts.Examples,
            "statistics": standard_artifacts.ExampleStatistics,
            "baseline_statistics": standard_artifacts.ExampleStatistics,
            "baseline_examples": standard_artifacts.Examples,
        },
        outputs={"anomalies": standard_artifacts.ExampleAnomalies},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        statistics: BaseChannel,
        baseline_examples: BaseChannel,
        baseline_statistics: BaseChannel,
        splits: tuple[str, str],
        thresholds: Mapping[str, float],
        stop: bool,
        between_spans: bool,
        omitted: str | None = None,
    ):
        """Builds the node.

        Args:
          examples, statistics: what is checked.
          baseline_examples, baseline_statistics: what it is compared with; thresholds are resampled from the examples.
          splits: which split of the statistics is compared with which of the baseline's.
          thresholds: allowed distance by feature; for the others it follows from resampling.
          stop: whether a shift ends the run.
          between_spans: whether the baseline is of earlier spans; nothing is compared if it is of the same one.
          omitted: a feature that is not compared.
        """
        parameters = DistributionValidatorParameters(
            splits=splits,
            thresholds=dict(thresholds),
            stop=stop,
            between_spans=between_spans,
            omitted=omitted or "",
        )
        super().__init__(
            spec=fill(
                type(self),
                parameters,
                examples=examples,
                statistics=statistics,
                baseline_examples=baseline_examples,
                baseline_statistics=baseline_statistics,
            )
        )
