"""How examples are read: the settings `ingestion`."""

from dataclasses import dataclass

import tensorflow as tf

AUTO = 0  # tf.data tunes it while it runs


@dataclass(frozen=True)
class Options:
    """The settings `ingestion`, by the same names; `stillhouse.modules.settings.Ingestion` explains and checks them."""

    cache: str = "auto"  # auto, memory, disk, none
    memory_share: float = 0.25
    cache_folder: str | None = None
    interleave_files: int = AUTO
    interleave_block: int = 64
    shuffle_buffer: int = 10_000
    parallel_calls: int = AUTO
    deterministic: bool = True
    prefetch: int = AUTO
    ram_budget_mb: int = 0
    sharding: str = "batch"  # batch, file
    max_corrupt_records: int = 0
    service_workers: int = 0

    def or_autotune(self, name: str) -> int:
        """Returns the number of a setting, or tf.data's sign for tuning it."""
        return getattr(self, name) or tf.data.AUTOTUNE

    def applied(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the dataset under tf.data's own options."""
        options = tf.data.Options()
        options.deterministic = self.deterministic
        if self.ram_budget_mb:
            options.autotune.ram_budget = self.ram_budget_mb << 20
        return dataset.with_options(options)
