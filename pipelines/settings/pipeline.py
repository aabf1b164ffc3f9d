"""A pipeline: the whole settings file, and which settings go together."""

from typing import Literal

from pydantic import Field, model_validator

from pipelines.settings.data import Beam, Data, Ingestion
from pipelines.settings.distillation import OBJECTIVES, Student
from pipelines.settings.evaluation import METRICS, Evaluation, Push
from pipelines.settings.kubeflow import Kubeflow
from pipelines.settings.section import Section
from pipelines.settings.training import Ensemble, Teacher, Training


class Settings(Section):
    """A pipeline."""

    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$",
        description="Name of the pipeline: lower-case letters, digits and hyphens, 50 at the most.",
    )
    task: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="Import path of the task module; looked for beside the settings file first.",
    )
    head: Literal["classification", "multi_label", "regression"] = Field(
        "classification",
        description="What the label is: one class of several, labels that may hold together, a number.",
    )
    data: Data
    teachers: list[Teacher] = Field(min_length=1, description="One entry per kind of teacher.")
    ensemble: Ensemble = Field(Ensemble(), description="How several teachers are combined to one.")
    student: Student
    ingestion: Ingestion = Field(Ingestion(), description="How the trainings read their examples.")
    evaluation: Evaluation = Field(Evaluation(), description="How models are compared.")
    push: Push
    beam: Beam = Field(Beam(), description="How Beam runs the data steps.")
    kubeflow: Kubeflow = Field(Kubeflow(), description="How the pipeline runs on Kubeflow Pipelines.")

    @model_validator(mode="after")
    def _check_combinations(self):
        distillation, student = self.student.distillation, self.student
        metrics, objectives = METRICS[self.head], OBJECTIVES[self.head]
        if self.evaluation.metric not in (None, *metrics):
            raise ValueError(
                f"evaluation.metric: found {self.evaluation.metric!r}; allowed for the head {self.head}: "
                f"{', '.join(metrics)}"
            )
        objective = distillation.objective
        if objective is not None and objective not in objectives and "." not in objective:
            raise ValueError(
                f"student.distillation.objective: found {objective!r}; allowed for the head {self.head}: "
                f"{', '.join(objectives)}, or the import path of a function"
            )
        if self.head == "regression" and self.ensemble.combination == "geometric":
            raise ValueError("ensemble.combination: geometric is for distributions; numbers have arithmetic")
        if self.head == "regression" and any(t.label_smoothing for t in [*self.teachers, student]):
            raise ValueError("label_smoothing: a regression has none")
        clusters = {t.strategy.name for t in [*self.teachers, student]} & {"multi_worker_mirrored", "parameter_server"}
        if self.ingestion.service_workers and clusters:
            raise ValueError(
                f"ingestion.service_workers: the workers of {', '.join(sorted(clusters))} read for themselves"
            )
        if self.head != "classification" and student.omit_classes:
            raise ValueError(f"student.omit_classes: the head {self.head} has no classes to omit")
        if student.augment and distillation.targets == "cached":
            raise ValueError(
                "student.augment: cached targets are those of the unchanged inputs; set "
                "student.distillation.targets: online"
            )
        if student.strategy.name == "parameter_server" and distillation.targets == "online":
            raise ValueError(
                "student.distillation.targets: TensorFlow does not load teachers onto parameter servers; set cached, "
                "or another student.strategy"
            )
        teachers = self.all_teachers()
        for hint in distillation.hints:
            if hint.teacher > len(teachers):
                raise ValueError(
                    f"student.distillation.hints: there is no teacher {hint.teacher}, only {len(teachers)}"
                )
            if teachers[hint.teacher - 1].saved_model:
                raise ValueError(
                    f"student.distillation.hints: teacher {hint.teacher} is a saved_model, whose hidden layers are "
                    "not seen"
                )
        return self

    @property
    def metric(self) -> str:
        """The metric of the gates."""
        return self.evaluation.metric or METRICS[self.head][0]

    @property
    def objective(self) -> str:
        """The soft term of the distillation."""
        return self.student.distillation.objective or OBJECTIVES[self.head][0]

    def builder_of(self, training: Training) -> str:
        """Returns the name of the task's function that builds the network of a training."""
        return training.builder or ("build_teacher" if isinstance(training, Teacher) else "build_student")

    def builders(self) -> set[str]:
        """Returns the names of all functions of the task that build networks."""
        return {self.builder_of(training) for training in [*self.teachers, self.student]}

    def shards(self) -> list[dict[str, int] | None]:
        """Returns, for each of `all_teachers`, the part {index, of} of the train split that it sees; None: all."""
        return [
            {"index": copy, "of": teacher.copies} if teacher.shard_copies else None
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def all_teachers(self) -> list[Teacher]:
        """Returns one entry per teacher: copies are spelt out, each with a seed of its own."""
        return [
            teacher.model_copy(update={"copies": 1, "shard_copies": False, "seed": teacher.seed + copy})
            for teacher in self.teachers
            for copy in range(teacher.copies)
        ]

    def devices(self) -> int:
        """Returns the largest number of devices that any training wants in one process."""
        trainings = [*self.teachers, self.student]
        stages = [1 if of.parallelism.processes else of.parallelism.stages for of in trainings]
        return max([training.strategy.devices or 1 for training in trainings] + stages)
