"""How the student learns from the teachers."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from pipelines.settings.section import Section
from pipelines.settings.training import Training

# As modules.distillation.objectives has them, which cannot be imported here without TensorFlow; a test compares.
OBJECTIVES = {
    "classification": ("kl_divergence", "soft_cross_entropy", "logit_matching"),
    "multi_label": ("kl_divergence", "soft_cross_entropy", "logit_matching"),
    "regression": ("squared_error",),
}


class Schedule(Section):
    """A value that changes over the epochs; a plain number is the same in all of them."""

    start: float = Field(description="The value in the first epoch.")
    end: float = Field(description="The value in the last epoch.")
    schedule: Literal["linear", "cosine"] = Field("linear", description="The way from one to the other.")


def _constant(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"start": value, "end": value}
    if not isinstance(value, (dict, Schedule)):
        raise ValueError("a number, or {start, end, schedule}")
    return value


Scheduled = Annotated[Schedule, BeforeValidator(_constant)]


class Hint(Section):
    """A hidden layer of the student, guided by one of a teacher."""

    teacher: int = Field(1, ge=1, description="Number of the teacher; copies count one by one.")
    teacher_layer: str = Field(description="Name of the teacher's layer.")
    student_layer: str = Field(description="Name of the student's layer.")
    kind: Literal["mean_squared", "cosine"] = Field("mean_squared", description="FitNets' hint, or DistilBERT's.")
    weight: float = Field(1.0, gt=0, description="Weight of the hint beside the objective.")
    projection: bool | None = Field(
        None,
        description="Whether a learned projection bridges the widths of the two layers; default: if they differ.",
    )


class Distillation(Section):
    """How the student learns from the teachers: L = (1 - alpha) hard + alpha T² soft, plus hints."""

    objective: str | None = Field(
        None,
        description="The soft term: kl_divergence, soft_cross_entropy or logit_matching, for a regression "
        "squared_error, or the import path of a function; default: the first that fits the head.",
    )
    temperature: Scheduled = Field(
        Schedule(start=4.0, end=4.0), description="T > 0, by which logits are divided in the soft term, or a schedule."
    )
    alpha: Scheduled = Field(
        Schedule(start=0.9, end=0.9),
        description="Weight of the soft term, 0 to 1; the hard term has 1 - alpha; or a schedule.",
    )
    hints: list[Hint] = Field([], description="Hidden layers to be guided by teachers' layers.")
    targets: Literal["cached", "online"] = Field(
        "cached", description="Ask the teachers once and write down what they say, or ask them in every step."
    )
    targets_dtype: Literal["float32", "float16"] = Field("float32", description="Of the logits that are written down.")
    teacher_batch_size: int = Field(512, ge=1, description="Examples that teachers are asked about at a time.")
    dark_knowledge: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 2.0, 5.0, 10.0],
        description="Temperatures at which to look into the soft targets of classes; [] does not.",
    )

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, schedule):
        if min(schedule.start, schedule.end) <= 0:
            raise ValueError("greater than 0")
        return schedule

    @field_validator("alpha")
    @classmethod
    def _check_alpha(cls, schedule):
        if min(schedule.start, schedule.end) < 0 or max(schedule.start, schedule.end) > 1:
            raise ValueError("between 0 and 1")
        return schedule


class Student(Training):
    """The student."""

    omit_classes: list[int] = Field(
        [], description="Class ids left out of the student's (and baseline's) training (Hinton's omitted digit)."
    )
    distillation: Distillation = Field(Distillation(), description="How it learns from the teachers.")
