"""Which spans are in a window, and how the window travels: as a Struct in ExampleGen's custom_config.

range_config itself stays free for the one span that a run may ask for, at which its window ends.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import struct_pb2
from tfx.components.example_gen.input_processor import FileBasedInputProcessor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.utils import proto_utils

SEPARATOR = "\n"  # between the patterns of a split's spans


def custom_config(spans: int, skipped: int = 0) -> example_gen_pb2.CustomConfig:
    """Returns the custom_config of an ExampleGen over so many spans, without the newest `skipped`."""
    config = example_gen_pb2.CustomConfig()
    window = struct_pb2.Struct()
    window.update({"spans": spans, "skipped": skipped})
    config.custom_config.Pack(window)
    return config


def _window_of(properties: dict[str, Any]) -> tuple[int, int]:
    """Returns the length of the window, and how many of the newest spans it skips."""
    config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(properties["custom_config"], config)
    window = struct_pb2.Struct()
    config.custom_config.Unpack(window)
    return int(window["spans"]), int(window["skipped"])


def spans_in(base: str, patterns: Iterable[str]) -> list[int]:
    """Returns the numbers of the spans of which there are files for all `patterns` with {SPAN}, ascending."""
    spans_of_patterns = []
    for pattern in patterns:
        path = os.path.join(base, pattern)
        parts = re.split(r"(\{SPAN\}|\{VERSION\}|\*)", path)
        placeholders = {"{SPAN}": r"(?P<span>\d+)", "{VERSION}": r"\d+", "*": "[^/]*"}
        expression = re.compile("".join(placeholders.get(part, re.escape(part)) for part in parts))
        files = map(os.fsdecode, fileio.glob(path.replace("{SPAN}", "*").replace("{VERSION}", "*")))
        spans_of_patterns.append({int(match["span"]) for file in files if (match := expression.fullmatch(file))})
    return sorted(set.intersection(*spans_of_patterns))


def widened(properties: dict[str, Any], newest_span: int) -> dict[str, Any]:
    """Returns input_config, input_fingerprint and span of the window that ends at `newest_span`.

    Each split's pattern becomes those of its spans, one per line. Where there are fewer spans than the window has,
    those that are there are taken; where all are skipped, the newest.

    Args:
      properties: execution properties of the ExampleGen, patterns with {SPAN} in them.
      newest_span: the newest in the window.
    """
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(properties["input_config"], config)
    base = properties["input_base"]
    existing_spans = [
        span for span in spans_in(base, [split.pattern for split in config.splits]) if span <= newest_span
    ]
    spans, skipped = _window_of(properties)
    last = max(1, len(existing_spans) - skipped)
    window = existing_spans[max(0, last - spans) : last]
    patterns: dict[str, list[str]] = {split.name: [] for split in config.splits}
    fingerprints: list[str] = []
    for span in window:
        only = range_config_pb2.StaticRange(start_span_number=span, end_span_number=span)
        processor = FileBasedInputProcessor(base, config.splits, range_config_pb2.RangeConfig(static_range=only))
        number, version = processor.resolve_span_and_version()
        fingerprints.append(processor.get_input_fingerprint(number, version) or "")
        for split in config.splits:
            patterns[split.name].append(processor.get_pattern_for_span_version(split.pattern, number, version))
    for split in config.splits:
        split.pattern = SEPARATOR.join(patterns[split.name])
    digest = hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()
    return {
        "input_config": proto_utils.proto_to_json(config),
        "input_fingerprint": f"{len(fingerprints)} spans up to {window[-1]}: {digest}",
        "span": window[-1],
    }
