"""Sets the thresholds that the settings leave open, runs the stock validation, and stops the run if it is asked to."""

from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types
from tfx.components.distribution_validator import executor
from tfx.components.statistics_gen.stats_artifact_utils import load_statistics
from tfx.proto import distribution_validator_pb2
from tfx.proto.orchestration.execution_result_pb2 import ExecutorOutput
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, json_utils

from stillhouse.components.base import Parameters
from stillhouse.components.distribution_validator.noise import comparator, noise_thresholds, sample
from stillhouse.components.distribution_validator.shifts import feature_name, read_shifts
from stillhouse.modules.errors import UserError, listed


class DistributionValidatorParameters(Parameters):
    """`thresholds` are those of the settings; `omitted` is a feature that is not compared, or ""."""

    splits: tuple[str, str]
    thresholds: dict[str, float]
    stop: bool
    between_spans: bool
    omitted: str


class Executor(executor.Executor):
    """The stock executor with a threshold for every feature; a UserError if one has shifted and `stop` is set."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> ExecutorOutput:
        """Writes output_dict["anomalies"], with nothing in it while there is no earlier span."""
        parameters = DistributionValidatorParameters.read(exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        baseline = artifact_utils.get_single_instance(input_dict["baseline_statistics"])
        stock_inputs = {"statistics": [statistics], "baseline_statistics": [baseline]}
        config = distribution_validator_pb2.DistributionValidatorConfig()
        if parameters.between_spans and span_of(input_dict["examples"]) == span_of(input_dict["baseline_examples"]):
            stock_inputs["baseline_statistics"] = []
        else:
            examples = artifact_utils.get_split_uri(input_dict["baseline_examples"], parameters.splits[1])
            (checked,) = load_statistics(statistics, parameters.splits[0]).proto().datasets
            (compared,) = load_statistics(baseline, parameters.splits[1]).proto().datasets
            _set_thresholds(config, parameters, checked, compared, io_utils.all_files_pattern(examples))
        properties = {
            standard_component_specs.DISTRIBUTION_VALIDATOR_CONFIG_KEY: config,
            standard_component_specs.INCLUDE_SPLIT_PAIRS_KEY: json_utils.dumps([list(parameters.splits)]),
        }
        executor_output = super().Do(stock_inputs, output_dict, properties)
        shifted = [shift.reason for shift in read_shifts(output_dict["anomalies"][0]) if shift.shifted]
        if shifted and parameters.stop:
            key, other = ("drift", "those of earlier spans") if parameters.between_spans else ("skew", "those of train")
            raise UserError(
                f"the distributions of {len(shifted)} features differ from {other}; correct the data, allow more in "
                f"data.{key}.thresholds, or set data.{key}.stop: false:{listed(shifted)}"
            )
        return executor_output


def span_of(examples: list[types.Artifact]) -> int:
    """Returns the newest span of what an ExampleGen gave, which its driver notes as a custom property."""
    return artifact_utils.get_single_instance(examples).get_int_custom_property("span")


def _set_thresholds(
    config: distribution_validator_pb2.DistributionValidatorConfig,
    parameters: DistributionValidatorParameters,
    checked: statistics_pb2.DatasetFeatureStatistics,
    baseline: statistics_pb2.DatasetFeatureStatistics,
    files: str,
) -> None:
    """Adds a comparator for every feature of the baseline that can be compared."""
    features = {feature_name(feature): feature for feature in baseline.features}
    kinds = {
        name: kind
        for name, feature in features.items()
        if name != parameters.omitted and (kind := comparator(feature)) is not None
    }
    left_open = {name: kind for name, kind in kinds.items() if name not in parameters.thresholds}
    noise = noise_thresholds(sample(files), (checked.num_examples, baseline.num_examples), left_open)
    for name, kind in kinds.items():
        threshold = parameters.thresholds.get(name, noise.get(name))
        if threshold is not None:
            entry = config.default_slice_config.feature.add()
            entry.path.step.append(name)
            getattr(entry.distribution_comparator, kind).threshold = threshold
