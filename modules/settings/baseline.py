"""Settings of the baseline: how the student's network is trained without teachers."""

from typing import Annotated

from pydantic import Field, model_validator

from stillhouse.modules.settings.input_changes import Probability, Spread
from stillhouse.modules.settings.section import Section
from stillhouse.modules.settings.training import Optimizer, Training

NOT_OF_TRAINING = {"updates"}
AMOUNTS = ("noise", "swap", "mixup")
Amount = Annotated[float, Field(ge=0)]


class Baseline(Section):
    """The student's twin, trained on the labels alone, treated as well as the student unless this says otherwise.

    null takes the student's value.
    """

    updates: int | None = Field(
        None,
        ge=1,
        description="Number of updates, rounded up to a multiple of the student's epochs; null: as many as the student "
        "makes on labelled and unlabelled examples together.",
    )
    epochs: int | None = Field(
        None, ge=1, description="Number of passes over the train split, instead of a number of updates; null: updates."
    )
    batch_size: int | None = Field(None, ge=1, description="Examples per update; null: the student's.")
    seed: int | None = Field(None, ge=0, description="Random seed; null: the student's.")
    optimizer: Optimizer | None = Field(None, description="Optimiser and learning rate; null: the student's.")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="Label smoothing; null: the student's.")
    augment: bool | None = Field(None, description="Apply the task's augment to inputs; null: as for the student.")
    noise: Amount | dict[str, Spread] | None = Field(
        None, description="As for the student; 0: none; null: the student's."
    )
    swap: Annotated[float, Field(ge=0, le=1)] | dict[str, Probability] | None = Field(
        None, description="As for the student; 0: none; null: the student's."
    )
    mixup: Amount | None = Field(
        None, description="As for the student, and mixes the labels; 0: none; null: the student's."
    )
    early_stopping: int | None = Field(None, ge=1, description="As for the student; null: the student's.")

    @model_validator(mode="after")
    def _check_length(self):
        if self.updates is not None and self.epochs is not None:
            raise ValueError("updates, epochs: exclusive; remove one of them")
        return self

    def training_of(self, student: Training) -> Training:
        """Returns the student's settings with those of the baseline in their place."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in NOT_OF_TRAINING}
        own = {name: value for name, value in own.items() if value is not None}
        # An amount of 0 turns off what the student has.
        return student.model_copy(update=own | {name: own[name] or None for name in AMOUNTS if name in own})
