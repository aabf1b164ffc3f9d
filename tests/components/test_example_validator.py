import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from stillhouse.components.example_validator.executor import check_count, describe
from stillhouse.modules.errors import UserError


def test_each_anomaly_is_a_line_with_feature_and_reason():
    anomalies = anomalies_pb2.Anomalies()
    info = anomalies.anomaly_info["fare"]
    info.severity = anomalies_pb2.AnomalyInfo.ERROR
    info.description = "Unexpectedly small value: -3."
    anomalies.anomaly_info["miles"].severity = anomalies_pb2.AnomalyInfo.WARNING
    assert describe("eval", anomalies) == ["eval: feature 'fare': Unexpectedly small value: -3"]


def test_a_split_without_examples_is_named():
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    statistics.datasets.add(num_examples=1)
    check_count("train", statistics)
    statistics.datasets[0].num_examples = 0
    with pytest.raises(UserError, match="the eval split has no examples; .*data.splits"):
        check_count("eval", statistics)
