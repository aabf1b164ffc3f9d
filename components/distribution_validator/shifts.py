"""Reading what DistributionValidator wrote."""

import os
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.components.distribution_validator.executor import DEFAULT_FILE_NAME
from tfx.types import artifact_utils
from tfx.utils import io_utils

MEASURES = {"L_INFTY": "L-infinity distance", "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon divergence"}


@dataclass(frozen=True)
class Shift:
    """How far a feature's distribution is from the baseline's; None: it could not be compared."""

    feature: str
    measure: str | None
    distance: float | None
    threshold: float | None
    shifted: bool

    @property
    def reason(self) -> str:
        """The shift in words."""
        if self.distance is None:
            return f"feature {self.feature!r}: has no values to compare any more"
        return f"feature {self.feature!r}: {self.measure} {self.distance:.3f}, allowed {self.threshold:.3f}"


def read_shifts(anomalies: types.Artifact) -> list[Shift]:
    """Returns the features that were compared, by name; none while there was nothing to compare with."""
    shifts = []
    for pair in artifact_utils.decode_split_names(anomalies.split_names) if anomalies.split_names else []:
        message = anomalies_pb2.Anomalies()
        path = os.path.join(anomalies.uri, f"SplitPair-{pair}", DEFAULT_FILE_NAME)
        message.ParseFromString(io_utils.read_bytes_file(path))
        compared = {info.path.step[0]: info.drift_measurements[0] for info in message.drift_skew_info}
        for name in sorted({*compared, *message.anomaly_info}):
            measured = compared.get(name)
            if measured is None:
                shifts.append(Shift(name, None, None, None, True))
                continue
            kind = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name(measured.type)
            distance, threshold = float(measured.value), float(measured.threshold)
            shifts.append(Shift(name, MEASURES.get(kind, kind), distance, threshold, distance > threshold))
    return shifts


def feature_name(feature: statistics_pb2.FeatureNameStatistics) -> str:
    """Returns the name of a feature, which StatisticsGen writes as a path."""
    return feature.name or ".".join(feature.path.step)
