"""Runs the stock validation and stops the run on its anomalies."""

import os
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.components.example_validator import executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.proto.orchestration.execution_result_pb2 import ExecutorOutput
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.modules.errors import UserError, listed


def describe(split: str, anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """Returns one line per anomaly of a split: the feature and the reason."""
    lines = []
    if anomalies.dataset_anomaly_info.severity == anomalies_pb2.AnomalyInfo.ERROR:
        lines.append(f"{split}: the whole split: {anomalies.dataset_anomaly_info.description}")
    for feature, info in sorted(anomalies.anomaly_info.items()):
        if info.severity == anomalies_pb2.AnomalyInfo.ERROR:
            lines.append(f"{split}: feature {feature!r}: {info.description.rstrip('.')}")
    return lines


def check_count(split: str, statistics: statistics_pb2.DatasetFeatureStatisticsList) -> None:
    """Raises UserError if a split has no examples."""
    if not sum(dataset.num_examples for dataset in statistics.datasets):
        raise UserError(f"the {split} split has no examples; expected at least 1; add examples, or change data.splits")


class Executor(executor.Executor):
    """The stock executor, then a UserError if any anomaly has severity ERROR."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> ExecutorOutput:
        """Raises UserError naming each feature and reason, or a split without examples."""
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        for split in artifact_utils.decode_split_names(statistics.split_names):
            check_count(split, stats_artifact_utils.load_statistics(statistics, split).proto())
        executor_output = super().Do(input_dict, output_dict, exec_properties)
        uri = artifact_utils.get_single_uri(output_dict["anomalies"])
        lines = []
        for split in artifact_utils.decode_split_names(output_dict["anomalies"][0].split_names):
            anomalies = anomalies_pb2.Anomalies()
            anomalies.ParseFromString(
                io_utils.read_bytes_file(os.path.join(uri, f"Split-{split}", executor.DEFAULT_FILE_NAME))
            )
            lines += describe(split, anomalies)
        if lines:
            raise UserError(
                f"the data violate the schema; correct the data, or relax the schema in data.schema:{listed(lines)}"
            )
        return executor_output
