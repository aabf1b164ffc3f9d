"""Objects of the API of Kubeflow Pipelines (v2beta1): the fields that stillhouse sends and reads, and no others."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, Field, StringConstraints, model_validator

Id = Annotated[str, StringConstraints(min_length=1)]
Item = TypeVar("Item")


class Answer(BaseModel):
    """What the server answers; fields that are not declared are ignored."""


class Pipeline(Answer):
    """A pipeline, which has versions."""

    pipeline_id: Id
    display_name: str = ""


class PipelineVersion(Answer):
    """A compiled pipeline."""

    pipeline_id: Id
    pipeline_version_id: Id
    display_name: str = ""


class Experiment(Answer):
    """In which runs are listed."""

    experiment_id: Id
    display_name: str = ""


class VersionReference(BaseModel):
    """Names a version."""

    pipeline_id: str = ""
    pipeline_version_id: str = ""


class RuntimeConfig(BaseModel):
    """What a run is started with."""

    parameters: dict[str, Any] | None = None
    pipeline_root: str = ""


class Status(Answer):
    """Why a run or a task failed."""

    message: str = ""


class Node(Answer):
    """A node of the workflow that a run is: X-driver, X and executor, or executor(N), for the task X."""

    display_name: str = ""
    state: str | None = None


class RunDetails(Answer):
    """The nodes of a run."""

    task_details: list[Node] | None = None


class Task(Answer):
    """A task of a run, as backends without MLMD tell of it."""

    name: str = ""
    state: str | None = None
    status_metadata: Status | None = None


class Run(Answer):
    """A run of a version."""

    run_id: Id
    display_name: str = ""
    state: str | None = None
    created_at: datetime | None = None
    recurring_run_id: str | None = None
    run_details: RunDetails | None = None
    error: Status | None = None
    tasks: list[Task] | None = None

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes that have started."""
        return (self.run_details and self.run_details.task_details) or []


class CronSchedule(BaseModel):
    """At these times; the first of six fields is the second."""

    cron: str


class PeriodicSchedule(BaseModel):
    """Every so many seconds, an integer in decimal digits."""

    interval_second: str


class Trigger(BaseModel):
    """When a recurring run starts runs."""

    cron_schedule: CronSchedule | None = None
    periodic_schedule: PeriodicSchedule | None = None


class RecurringRunSpec(BaseModel):
    """A recurring run as it is asked for."""

    display_name: str = ""
    experiment_id: str = ""
    namespace: str | None = None
    pipeline_version_reference: VersionReference | None = None
    runtime_config: RuntimeConfig | None = None
    trigger: Trigger
    max_concurrency: str = "1"
    no_catchup: bool = False
    mode: str = "ENABLE"
    service_account: str | None = None
    plugins_input: dict[str, Any] | None = None


class RecurringRun(RecurringRunSpec, Answer):
    """A recurring run on the server."""

    recurring_run_id: Id
    status: str = ""
    created_at: datetime | None = None


class Listing(Answer, Generic[Item]):
    """A page of a listing, whose items have a key of their own in each; a page of nothing is {}."""

    items: list[Item] | None = None
    next_page_token: str | None = None
    total_size: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_page(cls, answer: Any) -> Any:
        known = {field.alias or name for name, field in cls.model_fields.items()}
        if isinstance(answer, dict) and answer and not answer.keys() & known:
            raise ValueError(f"expected one of: {', '.join(sorted(known))}")
        return answer


class Pipelines(Listing[Pipeline]):
    """A page of pipelines."""

    items: list[Pipeline] | None = Field(None, alias="pipelines")


class PipelineVersions(Listing[PipelineVersion]):
    """A page of a pipeline's versions."""

    items: list[PipelineVersion] | None = Field(None, alias="pipeline_versions")


class Experiments(Listing[Experiment]):
    """A page of experiments."""

    items: list[Experiment] | None = Field(None, alias="experiments")


class Runs(Listing[Run]):
    """A page of runs."""

    items: list[Run] | None = Field(None, alias="runs")


class RecurringRuns(Listing[RecurringRun]):
    """A page of recurring runs."""

    items: list[RecurringRun] | None = Field(None, alias="recurringRuns")
