"""Where the examples are, how they are read, and how Beam runs the data steps."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from stillhouse.modules.settings.section import Section


class Data(Section):
    """Where the examples are and what is predicted."""

    path: str = Field(description="Folder of the data; may hold {SPAN} and {VERSION}, of which the newest is taken.")
    format: Literal["csv", "tfrecord", "parquet"] = Field("csv", description="Format of the files in the folder.")
    label: str = Field(description="The label column.")
    splits: dict[str, int | str] = Field(
        {"train": 4, "eval": 1},
        description="The splits train and eval: shares of the examples (by hash), or a file pattern below the path.",
    )
    transfer: str | None = Field(
        None,
        description="Folder of more examples in the same format, without labels, that the student learns from too.",
    )
    spans: int = Field(1, ge=1, description="Newest spans to train on together; models are compared on the newest.")
    schema_file: str | None = Field(
        None, alias="schema", description="A curated schema (schema.pbtxt); without it, one is inferred from the data."
    )

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits):
        if set(splits) != {"train", "eval"}:
            raise ValueError(f"found {', '.join(splits) or 'nothing'}; exactly train and eval are allowed")
        if len({type(value) for value in splits.values()}) > 1:
            raise ValueError("either both are shares (integers) or both are file patterns")
        if any(isinstance(value, int) and value < 1 for value in splits.values()):
            raise ValueError("shares are at least 1")
        return splits

    @field_validator("path")
    @classmethod
    def _check_path(cls, path):
        if "{VERSION}" in path and "{SPAN}" not in path:
            raise ValueError("{VERSION} needs {SPAN} before it")
        return path

    @model_validator(mode="after")
    def _check_spans(self):
        if self.spans > 1 and "{SPAN}" not in self.path:
            raise ValueError(f"data.spans is {self.spans}, but data.path has no {{SPAN}}")
        return self


class Ingestion(Section):
    """How the trainings read their examples. The defaults are the fast ones; 0 lets tf.data tune a number."""

    cache: Literal["auto", "memory", "disk", "none"] = Field(
        "auto",
        description="Where examples are kept between epochs; auto: memory if they fit in memory_share, else disk.",
    )
    memory_share: float = Field(
        0.25, gt=0, le=1, description="Share of the free memory that auto lets the decoded examples have."
    )
    cache_folder: str | None = Field(
        None, description="Folder of cache: disk, and of files that max_corrupt_records mended; default: below --root."
    )
    interleave_files: int = Field(0, ge=0, description="Files that are read at the same time.")
    interleave_block: int = Field(64, ge=1, description="Examples that are taken from a file before the next one.")
    shuffle_buffer: int = Field(
        10_000, ge=1, description="Examples of the shuffle buffer of disk and none; memory shuffles all of them."
    )
    parallel_calls: int = Field(0, ge=0, description="Batches that are parsed at the same time.")
    deterministic: bool = Field(True, description="The same seed, the same order; false takes whatever is ready first.")
    prefetch: int = Field(0, ge=0, description="Batches that are ready before they are asked for.")
    ram_budget_mb: int = Field(0, ge=0, description="Memory that tf.data's tuning may use; 0: half of the machine's.")
    sharding: Literal["batch", "file"] = Field(
        "batch",
        description="What workers of multi_worker_mirrored share: each global batch, so that weights equal those of "
        "one device, or the files, so that each reads only its own.",
    )
    max_corrupt_records: int = Field(
        0, ge=0, description="Damaged records to leave out; with more, the training stops and names the first."
    )
    service_workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that read and parse (and augment) for the training, by tf.data service; 0: it does that "
        "itself. They need deterministic: false.",
    )

    @model_validator(mode="after")
    def _check_service(self):
        if self.service_workers and self.deterministic:
            raise ValueError("service_workers: their batches come as they are ready; set deterministic: false")
        if self.service_workers and self.cache == "memory":
            raise ValueError("service_workers: they read files; set cache: disk, or none")
        return self


class Shard(Section):
    """One of `of` equal parts of the examples: every of-th example from `index` on."""

    index: int
    of: int


class Beam(Section):
    """How Beam runs the data steps."""

    options: list[str] = Field([], description="Beam pipeline options, such as --runner=FlinkRunner.")
