"""The settings `ingestion` in tf.data's terms."""

import tensorflow as tf

from stillhouse.modules.settings import Ingestion


def or_autotune(number: int) -> int:
    """Returns the number of a setting, or tf.data's sign for tuning it where it is 0."""
    return number or tf.data.AUTOTUNE


def with_options(dataset: tf.data.Dataset, ingestion: Ingestion) -> tf.data.Dataset:
    """Returns the dataset under tf.data's own options: whether its order is fixed, and its memory budget."""
    options = tf.data.Options()
    options.deterministic = ingestion.deterministic
    if ingestion.ram_budget_mb:
        options.autotune.ram_budget = ingestion.ram_budget_mb << 20
    return dataset.with_options(options)
