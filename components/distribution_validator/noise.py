"""Thresholds from resampling: how far two samples of one distribution are apart by chance.

A fixed threshold cries wolf on small data and is blind on large ones. So the baseline's own examples are drawn with
replacement, twice, in the numbers of the data sets that are compared, and TFDV measures the distance of the two; that
again and again. The threshold is the mean distance plus FACTOR standard deviations.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from stillhouse.modules.models.serving import read_records

ROWS = 10_000  # at most so many examples are drawn; more would only lower the threshold, below what matters
DRAWS = 20
FACTOR = 4.0
# Distances below are of no consequence, however many examples show them. TFDV's Jensen-Shannon divergence of two large
# samples of one normal distribution is about 0.015, because their histograms have different boundaries.
LEAST = {"infinity_norm": 0.02, "jensen_shannon_divergence": 0.03}
MEASURES = {
    statistics_pb2.FeatureNameStatistics.INT: "jensen_shannon_divergence",
    statistics_pb2.FeatureNameStatistics.FLOAT: "jensen_shannon_divergence",
    statistics_pb2.FeatureNameStatistics.STRING: "infinity_norm",
}


def comparator(feature: statistics_pb2.FeatureNameStatistics) -> str | None:
    """Returns TFDV's distance for a feature; None: it has no values, or bytes or a structure as values."""
    kind = feature.WhichOneof("stats")
    if kind is None or not getattr(feature, kind).common_stats.num_non_missing:
        return None
    return MEASURES.get(feature.type)


def sample(files: str) -> pa.RecordBatch:
    """Returns up to ROWS of the examples in the files of a pattern, drawn in equal distances."""
    records = list(read_records(files).take(10 * ROWS).as_numpy_iterator())
    return ExamplesToRecordBatchDecoder().DecodeBatch(records[:: -(-len(records) // ROWS) or 1])


def noise_thresholds(
    examples: pa.RecordBatch, sizes: tuple[int, int], comparators: Mapping[str, str], seed: int = 0
) -> dict[str, float]:
    """Returns a threshold by feature.

    Args:
      examples: a sample of the baseline.
      sizes: numbers of examples of the two data sets that are compared.
      comparators: TFDV's distance by feature.
      seed: of the draws.
    """
    if not comparators or not examples.num_rows:
        return {}
    random = np.random.default_rng(seed)
    table = pa.Table.from_batches([examples]).select(list(comparators))

    def drawn(size: int) -> statistics_pb2.DatasetFeatureStatisticsList:
        rows = random.integers(examples.num_rows, size=int(min(size, ROWS)))
        (batch,) = table.take(pa.array(rows)).combine_chunks().to_batches()
        return stats_impl.generate_statistics_in_memory(batch)

    distances: dict[str, list[float]] = {name: [] for name in comparators}
    for _ in range(DRAWS):
        for name, distance in _distances(drawn(sizes[0]), drawn(sizes[1]), comparators).items():
            distances[name].append(distance)
    return {
        name: max(LEAST[comparators[name]], float(np.mean(values) + FACTOR * np.std(values, ddof=1)))
        for name, values in distances.items()
        if len(values) > 1
    }


def _distances(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    baseline: statistics_pb2.DatasetFeatureStatisticsList,
    comparators: Mapping[str, str],
) -> dict[str, float]:
    """Returns TFDV's distance of each feature that both have values of."""
    schema = schema_pb2.Schema()
    schema.CopyFrom(tfdv.infer_schema(baseline))
    for feature in schema.feature:
        getattr(feature.drift_comparator, comparators[feature.name]).threshold = 1.0
    anomalies = tfdv.validate_statistics(statistics, schema, previous_statistics=baseline)
    return {info.path.step[0]: info.drift_measurements[0].value for info in anomalies.drift_skew_info}
