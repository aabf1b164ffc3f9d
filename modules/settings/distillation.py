"""How the student learns from the teachers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stillhouse.modules.settings.section import Section
from stillhouse.modules.settings.training import Optimizer, Training

MASKED = "masked_language_model"  # the head of a pre-training
# By head; the first of each is its default. modules/distillation/objectives.py has the function of each.
OBJECTIVES = {
    "classification": ("kl_divergence", "soft_cross_entropy", "logit_matching"),
    "multi_label": ("kl_divergence", "soft_cross_entropy", "logit_matching"),
    "regression": ("squared_error",),
    MASKED: ("kl_divergence",),
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


def _is_temperature(schedule: Schedule) -> Schedule:
    if min(schedule.start, schedule.end) <= 0:
        raise ValueError("greater than 0")
    return schedule


def _is_share(schedule: Schedule) -> Schedule:
    if min(schedule.start, schedule.end) < 0 or max(schedule.start, schedule.end) > 1:
        raise ValueError("between 0 and 1")
    return schedule


Temperature = Annotated[Schedule, BeforeValidator(_constant), AfterValidator(_is_temperature)]
Share = Annotated[Schedule, BeforeValidator(_constant), AfterValidator(_is_share)]


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


class PseudoLabels(Section):
    """Noisy Student: unlabelled examples (data.transfer) get labels from the teacher, labelled ones keep theirs."""

    kind: Literal["soft", "hard"] = Field("soft", description="The teacher's distribution, or its likeliest class.")
    min_confidence: float = Field(
        0.3, ge=0, lt=1, description="Unlabelled examples of whose class the teacher is less sure are left out."
    )
    balance: bool = Field(
        True, description="Take as many of each class: the most confident ones, or some of them more than once."
    )
    rounds: int = Field(
        1,
        ge=1,
        le=20,
        description="Students one after the other; each is the teacher of the next, the last is shipped.",
    )


class SoftPretraining(Section):
    """TMKD's first stage: the student learns from soft targets alone, of all examples, before the training proper."""

    epochs: int = Field(3, ge=1, description="Passes over the train split and data.transfer.")
    optimizer: Optimizer = Field(Optimizer(), description="The optimiser.")


class Distillation(Section):
    """How the student learns from the teachers: L = (1 - alpha) hard + alpha T² soft, plus hints."""

    objective: str | None = Field(
        None,
        description="The soft term: kl_divergence, soft_cross_entropy or logit_matching, for a regression "
        "squared_error, or the import path of a function; default: the first that fits the head.",
    )
    temperature: Temperature = Field(
        Schedule(start=4.0, end=4.0), description="T > 0, by which logits are divided in the soft term, or a schedule."
    )
    alpha: Share = Field(
        Schedule(start=0.9, end=0.9),
        description="Weight of the soft term, 0 to 1; the hard term has 1 - alpha; or a schedule.",
    )
    hints: list[Hint] = Field([], description="Hidden layers to be guided by teachers' layers.")
    targets: Literal["cached", "online"] = Field(
        "cached", description="Ask the teachers once and write down what they say, or ask them in every step."
    )
    targets_dtype: Literal["float32", "float16"] = Field("float32", description="Of the logits that are written down.")
    teacher_batch_size: int = Field(512, ge=1, description="Examples that teachers are asked about at a time.")
    head_per_teacher: bool = Field(
        False,
        description="The student gets a last layer for each teacher, which learns from that teacher and the labels; "
        "they answer together.",
    )
    pretraining: SoftPretraining | None = Field(None, description="A first stage on soft targets alone.")
    pseudo_labels: PseudoLabels | None = Field(None, description="Labels from the teacher; they want alpha 1.")
    dark_knowledge: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 2.0, 5.0, 10.0],
        description="Temperatures at which to look into the soft targets of classes; [] does not.",
    )

    @model_validator(mode="after")
    def _check_stages(self):
        if self.pseudo_labels is None:
            return self
        sure = Schedule(start=1.0, end=1.0)
        if (self.alpha, self.temperature) != (sure, sure):
            raise ValueError(
                "pseudo_labels: they hold the labels too; set alpha: 1 and temperature: 1, the cross-entropy with them"
            )
        others = {
            "hints": bool(self.hints),
            "pretraining": self.pretraining is not None,
            "targets: online": self.targets == "online",
            "head_per_teacher": self.head_per_teacher,
        }
        if any(others.values()):
            named = ", ".join(name for name, given in others.items() if given)
            raise ValueError(f"pseudo_labels: {named} cannot be set beside them")
        return self


class Student(Training):
    """The student."""

    omit_classes: list[int] = Field(
        [], description="Class ids left out of the student's (and baseline's) training (Hinton's omitted digit)."
    )
    distillation: Distillation = Field(Distillation(), description="How it learns from the teachers.")
