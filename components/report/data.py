"""Gathers the page's content about the data: span, statistics, schema, anomalies."""

import os
from dataclasses import asdict
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.statistics_gen.stats_artifact_utils import load_statistics
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from stillhouse.components.distribution_validator.shifts import Shift, feature_name, read_shifts

MAX_FEATURES = 200
# The optional inputs of distances, and what the examples were compared with.
SHIFTS = {"drift": "the earlier spans", "skew": "the examples of train"}
KINDS = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BYTES": "bytes", "STRUCT": "structure"}


def data_of(
    input_dict: dict[str, list[types.Artifact]], shifts: dict[str, list[Shift]], has_spans: bool
) -> dict[str, Any]:
    """Returns span, statistics, schema and anomalies of the raw examples.

    Args:
      input_dict: the Report's inputs examples, statistics, schema and anomalies.
      shifts: as `shifts_of` gives them.
      has_spans: whether the data path has spans; without, TFX reports span 0.

    Returns:
      {"span": int or None, "splits": {split: examples}, "features": [{"name", "kind", "presence", "splits": {split:
      {"missing": fraction, "values": words}}}], "left_out": number of features not listed, "anomalies": [{"split",
      "feature", "reason"}], "shifts": {"drift" or "skew": [{"feature", "measure", "distance", "threshold",
      "shifted"}]}}; a distance that could not be measured is None.
    """
    statistics, anomalies = input_dict["statistics"][0], input_dict["anomalies"][0]
    schema = schema_pb2.Schema()
    with fileio.open(os.path.join(input_dict["schema"][0].uri, "schema.pbtxt")) as file:
        text_format.Parse(file.read(), schema)
    schema_features = {feature.name: feature for feature in schema.feature}
    splits: dict[str, int] = {}
    features: dict[str, dict[str, Any]] = {}
    for split in artifact_utils.decode_split_names(statistics.split_names):
        (dataset,) = load_statistics(statistics, split).proto().datasets
        splits[split] = int(dataset.num_examples)
        for feature in dataset.features:
            name = feature_name(feature)
            row = features.setdefault(name, {"name": name, "kind": _kind(feature), "splits": {}})
            row["presence"] = _presence(schema_features.get(name))
            common = _common(feature)
            missing = common.num_missing / max(1, common.num_missing + common.num_non_missing)
            row["splits"][split] = {"missing": missing, "values": _values(feature)}
    rows = sorted(features.values(), key=lambda row: row["name"])
    listed_anomalies = []
    for split in artifact_utils.decode_split_names(anomalies.split_names):
        split_anomalies = anomalies_pb2.Anomalies()
        split_anomalies.ParseFromString(_read(anomalies.uri, split, "SchemaDiff.pb"))
        listed_anomalies += [
            {"split": split, "feature": name, "reason": info.description}
            for name, info in sorted(split_anomalies.anomaly_info.items())
        ]
    return {
        "span": input_dict["examples"][0].span if has_spans else None,
        "splits": splits,
        "features": rows[:MAX_FEATURES],
        "left_out": max(0, len(rows) - MAX_FEATURES),
        "anomalies": listed_anomalies,
        "shifts": {kind: [asdict(shift) for shift in features] for kind, features in shifts.items()},
    }


def shifts_of(input_dict: dict[str, list[types.Artifact]]) -> dict[str, list[Shift]]:
    """Returns the compared features by "drift" and "skew", as far as the Report has these inputs."""
    return {kind: read_shifts(input_dict[kind][0]) for kind in SHIFTS if input_dict.get(kind)}


def shift_warnings(shifts: dict[str, list[Shift]]) -> list[str]:
    """Returns a sentence for each feature whose distribution has shifted."""
    return [
        f"{kind}: {shift.reason}, from {SHIFTS[kind]}"
        for kind, features in shifts.items()
        for shift in features
        if shift.shifted
    ]


def _read(uri: str, split: str, name: str) -> bytes:
    with fileio.open(os.path.join(uri, f"Split-{split}", name), "rb") as file:
        return file.read()


def _kind(feature) -> str:
    name = statistics_pb2.FeatureNameStatistics.Type.Name(feature.type)
    return KINDS.get(name, name.lower())


def _presence(feature: schema_pb2.Feature | None) -> str:
    if feature is None:
        return "not in the schema"
    always = feature.presence.min_fraction == 1
    domain = next((kind for kind in ("int_domain", "float_domain", "string_domain") if feature.HasField(kind)), None)
    named = f"domain {feature.domain}" if feature.domain else domain.replace("_", " ") if domain else ""
    return ", ".join(filter(None, ["required" if always else "optional", named]))


def _common(feature):
    kind = feature.WhichOneof("stats")
    return getattr(feature, kind).common_stats


def _values(feature) -> str:
    """Returns range, mean and standard deviation of numbers, or the most frequent strings."""
    if feature.HasField("num_stats"):
        stats = feature.num_stats
        return f"{stats.min:.4g} to {stats.max:.4g}, mean {stats.mean:.4g}, standard deviation {stats.std_dev:.4g}"
    if feature.HasField("string_stats"):
        stats = feature.string_stats
        top = ", ".join(f"{value.value!r} {value.frequency:,.0f}" for value in stats.top_values[:3])
        return f"{stats.unique:,} distinct{': ' + top if top else ''}"
    return ""
