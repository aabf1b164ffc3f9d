"""What the page says about the data: span, statistics, schema, anomalies."""

import os
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

MOST_FEATURES = 200
KINDS = {"INT": "whole number", "FLOAT": "number", "STRING": "text", "BYTES": "bytes", "STRUCT": "structure"}


def data_of(input_dict: dict[str, list[types.Artifact]], has_spans: bool) -> dict[str, Any]:
    """Returns what is known about the raw examples.

    Args:
      input_dict: of the Report: examples, statistics, schema, anomalies.
      has_spans: whether the data come in spans; TFX numbers the others too, as 0.

    Returns:
      {"span": int or None, "splits": {split: examples}, "features": [{"name", "kind", "presence", "splits": {split:
      {"missing": share, "values": text}}}], "left_out": number of features that are not listed, "anomalies": [{"split",
      "feature", "reason"}]}.
    """
    statistics, anomalies = input_dict["statistics"][0], input_dict["anomalies"][0]
    schema = schema_pb2.Schema()
    with fileio.open(os.path.join(input_dict["schema"][0].uri, "schema.pbtxt")) as file:
        text_format.Parse(file.read(), schema)
    told = {feature.name: feature for feature in schema.feature}
    splits, features = {}, {}
    for split in artifact_utils.decode_split_names(statistics.split_names):
        found = statistics_pb2.DatasetFeatureStatisticsList()
        found.ParseFromString(_read(statistics.uri, split, "FeatureStats.pb"))
        (dataset,) = found.datasets
        splits[split] = int(dataset.num_examples)
        for feature in dataset.features:
            name = feature.name or ".".join(feature.path.step)
            row = features.setdefault(name, {"name": name, "kind": _kind(feature), "splits": {}})
            row["presence"] = _presence(told.get(name))
            common = _common(feature)
            missing = common.num_missing / max(1, common.num_missing + common.num_non_missing)
            row["splits"][split] = {"missing": missing, "values": _values(feature)}
    rows = sorted(features.values(), key=lambda row: row["name"])
    found = []
    for split in artifact_utils.decode_split_names(anomalies.split_names):
        of_split = anomalies_pb2.Anomalies()
        of_split.ParseFromString(_read(anomalies.uri, split, "SchemaDiff.pb"))
        found += [
            {"split": split, "feature": name, "reason": info.description}
            for name, info in sorted(of_split.anomaly_info.items())
        ]
    return {
        "span": input_dict["examples"][0].span if has_spans else None,
        "splits": splits,
        "features": rows[:MOST_FEATURES],
        "left_out": max(0, len(rows) - MOST_FEATURES),
        "anomalies": found,
    }


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
    return ", ".join(filter(None, ["always there" if always else "may be missing", named]))


def _common(feature):
    kind = feature.WhichOneof("stats")
    return getattr(feature, kind).common_stats


def _values(feature) -> str:
    """Returns in a few words what the values are."""
    if feature.HasField("num_stats"):
        of = feature.num_stats
        return f"{of.min:.4g} to {of.max:.4g}, mean {of.mean:.4g}, deviation {of.std_dev:.4g}"
    if feature.HasField("string_stats"):
        of = feature.string_stats
        top = ", ".join(f"{one.value!r} {one.frequency:,.0f}" for one in of.top_values[:3])
        return f"{of.unique:,} different{': ' + top if top else ''}"
    return ""
