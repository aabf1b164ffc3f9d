"""Settings of the examples' location, of reading them, and of Beam in the data steps."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stillhouse.modules.settings.section import Section


class Shift(Section):
    """What is allowed between the distributions of two data sets, feature by feature."""

    thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {},
        description="Allowed distance by feature: Jensen-Shannon divergence of numbers, L-infinity distance of "
        "strings. For the others it follows from the distances between resampled examples.",
    )
    stop: bool = Field(False, description="Stop the run at a larger distance, instead of a warning in the report.")


class Data(Section):
    """Location of the examples and the label to predict."""

    path: str = Field(
        min_length=1, description="Folder of the data; may contain {SPAN} and {VERSION}: the newest is read."
    )
    format: Literal["csv", "tfrecord", "parquet"] = Field("csv", description="Format of the files in the folder.")
    label: str = Field(min_length=1, description="Name of the label column.")
    splits: dict[str, int | str] = Field(
        {"train": 7, "validation": 1, "eval": 2},
        description="Splits train, eval and, if wanted, validation, by which epochs are chosen: integer weights (split "
        "by hash), or file patterns below path.",
    )
    transfer: str | None = Field(
        None,
        description="Folder of unlabelled examples in the same format for the student's distillation; null: none.",
    )
    spans: int = Field(
        1, ge=1, description="Number of newest spans to train on; models are evaluated on the newest alone."
    )
    drift: Shift | None = Field(
        Shift(), description="Compare the newest span with the spans before it; only with {SPAN} in path. null: do not."
    )
    skew: Shift | None = Field(
        Shift(), description="Compare the examples in transfer with those of train; only with transfer. null: do not."
    )
    schema_file: str | None = Field(
        None, alias="schema", description="Curated schema file (schema.pbtxt); null: inferred from the data."
    )

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits):
        if set(splits) - {"validation"} != {"train", "eval"}:
            raise ValueError("the keys train and eval, and at most validation besides")
        if len({type(value) for value in splits.values()}) > 1:
            raise ValueError("integers alone, or file patterns alone")
        if any(isinstance(value, int) and value < 1 for value in splits.values()):
            raise ValueError("integers of at least 1")
        return splits

    @field_validator("path")
    @classmethod
    def _check_path(cls, path):
        if "{VERSION}" in path and "{SPAN}" not in path:
            raise ValueError("{SPAN} before {VERSION}")
        return path

    @model_validator(mode="after")
    def _check_shifts(self):
        if self.drift not in (None, Shift()) and "{SPAN}" not in self.path:
            raise ValueError("drift: data.path has no {SPAN}; add it or remove drift")
        if self.skew not in (None, Shift()) and not self.transfer:
            raise ValueError("skew: not valid without data.transfer; add it or remove skew")
        return self

    @model_validator(mode="after")
    def _check_spans(self):
        if self.spans > 1 and "{SPAN}" not in self.path:
            raise ValueError(f"spans: found {self.spans}; data.path has no {{SPAN}}; add it or set spans to 1")
        return self


class Ingestion(Section):
    """How training jobs read their examples. The defaults are the fast values; 0 lets tf.data tune a number."""

    cache: Literal["auto", "memory", "disk", "none"] = Field(
        "auto",
        description="Storage of examples between epochs; auto: memory if they fit in memory_share, otherwise disk.",
    )
    memory_share: float = Field(
        0.25, gt=0, le=1, description="Fraction of free memory that cache: auto may use for decoded examples."
    )
    cache_folder: str | None = Field(
        None,
        description="Folder of cache: disk and of the files repaired under max_corrupt_records; null: below --root.",
    )
    interleave_files: int = Field(0, ge=0, description="Number of files read in parallel; 0: tuned by tf.data.")
    interleave_block: int = Field(64, ge=1, description="Consecutive examples read from one file before the next.")
    shuffle_buffer: int = Field(
        10_000,
        ge=1,
        description="Examples in the shuffle buffer of cache: disk and none; memory shuffles all examples.",
    )
    parallel_calls: int = Field(0, ge=0, description="Number of batches parsed in parallel; 0: tuned by tf.data.")
    deterministic: bool = Field(
        True, description="Same order for the same seed; false: whichever batch is ready first."
    )
    prefetch: int = Field(0, ge=0, description="Number of batches prepared ahead; 0: tuned by tf.data.")
    ram_budget_mb: int = Field(
        0, ge=0, description="Megabytes that tf.data's tuning may use; 0: half of the machine's memory."
    )
    sharding: Literal["batch", "file"] = Field(
        "batch",
        description="Division of the data among workers of multi_worker_mirrored; batch: each global batch, with the "
        "weights of one device as the result; file: each worker reads only its own files.",
    )
    max_corrupt_records: int = Field(
        0, ge=0, description="Maximum number of corrupt records to skip; with more, training stops and names the first."
    )
    service_workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Number of tf.data service processes that read, parse and augment examples; 0: the training "
        "process does. Requires deterministic: false.",
    )

    @model_validator(mode="after")
    def _check_service(self):
        if self.service_workers and self.deterministic:
            raise ValueError(
                "service_workers: not valid with deterministic: true (batches arrive in any order); set false"
            )
        if self.service_workers and self.cache == "memory":
            raise ValueError("service_workers: not valid with cache: memory (they read files); set cache: disk or none")
        return self


class Shard(Section):
    """One of `of` equal parts of the examples: every of-th example from `index` on."""

    index: int
    of: int


class Fold(Section):
    """One of `of` parts of the labelled examples, by a hash of the example, from 0."""

    index: int
    of: int


class Beam(Section):
    """How Beam runs the data steps."""

    options: list[str] = Field([], description="Beam pipeline options, such as --runner=FlinkRunner.")
