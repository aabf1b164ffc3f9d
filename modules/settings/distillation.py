"""Settings of the student and its distillation."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

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

DEFAULT_VIEWS = 8  # one would be the same in every epoch


class Schedule(Section):
    """A value that changes over the epochs; a plain number is constant."""

    start: float = Field(description="Value in the first epoch.")
    end: float = Field(description="Value in the last epoch.")
    schedule: Literal["linear", "cosine"] = Field("linear", description="Interpolation between start and end.")


def _constant(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"start": value, "end": value}
    if not isinstance(value, (dict, Schedule)):
        raise ValueError("a number, or {start, end, schedule}")
    return value


def _is_temperature(schedule: Schedule) -> Schedule:
    if min(schedule.start, schedule.end) <= 0:
        raise ValueError("a value greater than 0")
    return schedule


def _is_share(schedule: Schedule) -> Schedule:
    if min(schedule.start, schedule.end) < 0 or max(schedule.start, schedule.end) > 1:
        raise ValueError("a value between 0 and 1")
    return schedule


Temperature = Annotated[Schedule, BeforeValidator(_constant), AfterValidator(_is_temperature)]
Share = Annotated[Schedule, BeforeValidator(_constant), AfterValidator(_is_share)]


class Hint(Section):
    """A hidden layer of the student that is trained to match a teacher's layer."""

    teacher: int = Field(1, ge=1, description="Number of the teacher, from 1; each copy counts as a teacher.")
    teacher_layer: str = Field(description="Name of the teacher's layer.")
    student_layer: str = Field(description="Name of the student's layer.")
    kind: Literal["mean_squared", "cosine"] = Field(
        "mean_squared", description="Loss between the layers; mean_squared: FitNets, cosine: DistilBERT."
    )
    weight: float = Field(1.0, gt=0, description="Weight of the hint's loss, added to the objective.")
    projection: bool | None = Field(
        None,
        description="Learn a projection from the student's layer to the teacher's width; null: if the widths differ.",
    )


class PseudoLabels(Section):
    """Noisy Student: the teacher labels the unlabelled examples (data.transfer); labelled ones keep their labels."""

    kind: Literal["soft", "hard"] = Field(
        "soft", description="soft: the teacher's distribution; hard: its most likely class."
    )
    min_confidence: float = Field(
        0.3, ge=0, lt=1, description="Minimum confidence of the teacher; less certain unlabelled examples are skipped."
    )
    balance: bool = Field(
        True,
        description="Take the same number per class: the most confident, or examples repeatedly where there are few.",
    )
    rounds: int = Field(
        1,
        ge=1,
        le=20,
        description="Number of students in sequence; each teaches the next, the last is pushed.",
    )


class SoftPretraining(Section):
    """TMKD's first stage: the student learns from the soft targets of all examples, before the main training job."""

    epochs: int = Field(3, ge=1, description="Number of passes over the train split and data.transfer.")
    optimizer: Optimizer = Field(Optimizer(), description="Optimiser of this stage.")


class Distillation(Section):
    """The student's loss: L = (1 - alpha) hard + alpha T² soft, plus hints."""

    objective: str | None = Field(
        None,
        description="Soft term: kl_divergence, soft_cross_entropy or logit_matching; squared_error for regression; or "
        "the import path of a function; null: the first that is valid for the head.",
    )
    temperature: Temperature = Field(
        Schedule(start=4.0, end=4.0),
        description="Temperature T > 0 that divides logits in the soft term, or a schedule.",
    )
    alpha: Share = Field(
        Schedule(start=0.9, end=0.9),
        description="Weight of the soft term, 0 to 1, or a schedule; the hard term's is 1 - alpha.",
    )
    hints: list[Hint] = Field([], description="Hidden layers trained to match teachers' layers; []: none.")
    targets: Literal["cached", "online"] = Field(
        "cached", description="Compute and cache the teachers' logits once, or run the teachers in every step."
    )
    targets_dtype: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="Data type of the cached logits; int8: with a scale per teacher and example; the hidden states of "
        "hints are then float16. int8 is not valid for regression.",
    )
    targets_top: int | None = Field(
        None,
        ge=1,
        description="Number of largest logits cached per teacher and example; the other classes share the remaining "
        "probability evenly; null: all. For classification only.",
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="Number of folds: the cached targets of a labelled example come from teachers trained without its "
        "fold, one more training job per teacher and fold; null: from the teachers trained on all examples.",
    )
    views: int | None = Field(
        None,
        ge=1,
        description="Number of views of every example in the cached targets, where student.augment, noise, swap or "
        "mixup change the inputs; each epoch sees as many of them as there are examples; null: 8.",
    )
    teacher_batch_size: int = Field(512, ge=1, description="Examples per batch when teachers run inference.")
    head_per_teacher: bool = Field(
        False,
        description="Give the student one output layer per teacher, trained on that teacher and the labels; "
        "their outputs are combined at inference. Requires at least 2 teachers.",
    )
    pretraining: SoftPretraining | None = Field(
        None, description="First stage on soft targets alone; requires data.transfer; null: none."
    )
    pseudo_labels: PseudoLabels | None = Field(
        None, description="Pseudo-labelling by the teacher; requires data.transfer, alpha 1, temperature 1; null: none."
    )
    dark_knowledge: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 2.0, 5.0, 10.0],
        description="Temperatures of the dark-knowledge report; []: none.",
    )

    @model_validator(mode="after")
    def _check_views(self):
        if self.views and self.views > 1 and self.targets == "online":
            raise ValueError(
                f"views: found {self.views}; expected 1 with targets: online, which makes a new view in every step"
            )
        return self

    @model_validator(mode="after")
    def _check_cache(self):
        if self.targets == "online":
            for name in ("folds", "targets_top"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: not valid with targets: online; set targets: cached or remove {name}")
        return self

    @model_validator(mode="after")
    def _check_stages(self):
        if self.pseudo_labels is None:
            return self
        sure = Schedule(start=1.0, end=1.0)
        if (self.alpha, self.temperature) != (sure, sure):
            raise ValueError("pseudo_labels: alpha and temperature must be 1: these targets include the labels")
        incompatible = {
            "hints": bool(self.hints),
            "pretraining": self.pretraining is not None,
            "targets: online": self.targets == "online",
            "head_per_teacher": self.head_per_teacher,
            "views": bool(self.views and self.views > 1),
            "folds": self.folds is not None,
        }
        if any(incompatible.values()):
            named = ", ".join(name for name, is_set in incompatible.items() if is_set)
            raise ValueError(f"pseudo_labels: not valid with {named}; remove one of them")
        return self


class Student(Training):
    """The student."""

    omit_classes: list[Annotated[int, Field(ge=0)]] = Field(
        [], description="Class ids excluded from the training of student and baseline (Hinton's omitted digit)."
    )
    distillation: Distillation = Field(Distillation(), description="How the student learns from the teachers.")

    @field_validator("omit_classes")
    @classmethod
    def _check_omitted(cls, classes):
        if len(set(classes)) < len(classes):
            raise ValueError("a class is named twice")
        return classes

    @model_validator(mode="after")
    def _check_changes(self):
        views = self.distillation.views
        if views and views > 1 and not self.changes_inputs():
            raise ValueError(
                f"distillation.views: found {views}, but nothing changes the inputs; set augment, "
                "noise, swap or mixup, or views: 1"
            )
        if self.mixup and self.omit_classes:
            raise ValueError("mixup: not valid with omit_classes, which it would mix in; remove one of them")
        if self.mixup and self.distillation.pseudo_labels:
            raise ValueError(
                "mixup: not valid with distillation.pseudo_labels, which belong to unmixed inputs; set augment, noise "
                "or swap instead"
            )
        return self

    def number_of_views(self) -> int:
        """Returns the number of cached views of every example."""
        return self.distillation.views or DEFAULT_VIEWS

    def has_cached_views(self) -> bool:
        """Returns whether the soft targets belong to changed inputs; pseudo-labels belong to the unchanged ones."""
        return self.changes_inputs() and self.distillation.targets == "cached" and not self.distillation.pseudo_labels
