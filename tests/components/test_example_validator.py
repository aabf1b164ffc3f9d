from tensorflow_metadata.proto.v0 import anomalies_pb2

from stillhouse.components.example_validator.executor import describe


def test_each_anomaly_is_a_line_with_feature_and_reason():
    anomalies = anomalies_pb2.Anomalies()
    info = anomalies.anomaly_info["fare"]
    info.severity = anomalies_pb2.AnomalyInfo.ERROR
    info.description = "Unexpectedly small value: -3."
    anomalies.anomaly_info["miles"].severity = anomalies_pb2.AnomalyInfo.WARNING
    assert describe("eval", anomalies) == ["eval: feature 'fare': Unexpectedly small value: -3"]
