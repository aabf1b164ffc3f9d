"""Extractors for TFMA with which examples without a value of a slice column form a slice of their own.

TFMA puts an example that lacks the column of a slice into no slice; a student could be bad on all of them, unseen.
"""

import copy

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors.slice_key_extractor import SLICE_KEY_EXTRACTOR_STAGE_NAME
from tensorflow_model_analysis.proto import config_pb2

from stillhouse.components.evaluation import MISSING


def extractors(
    models: list[tfma.types.EvalSharedModel], eval_config: config_pb2.EvalConfig
) -> list[tfma.extractors.Extractor]:
    """Returns TFMA's default extractors with ours before the one that forms slices."""
    stages = tfma.default_extractors(eval_shared_model=models, eval_config=eval_config)
    columns = sorted({column for spec in eval_config.slicing_specs for column in spec.feature_keys})
    names = [extractor.stage_name for extractor in stages]
    fill = tfma.extractors.Extractor("FillMissingValues", beam.Map(_filled, columns))
    stages.insert(names.index(SLICE_KEY_EXTRACTOR_STAGE_NAME), fill)
    return stages


def _filled(extracts, columns: list[str]):
    features = dict(extracts[tfma.FEATURES_KEY])
    for column in columns:
        value = features.get(column)
        value = getattr(value, "values", value)  # of a sparse or ragged tensor
        if value is None or not np.size(value):
            features[column] = np.array([MISSING.encode()])
    filled = copy.copy(extracts)
    filled[tfma.FEATURES_KEY] = features
    return filled
