"""Settings of the random changes of training inputs, and the views that they make."""

from typing import Annotated

from pydantic import Field

from stillhouse.modules.settings.section import Section

Spread = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(gt=0, le=1)]


class InputChanges(Section):
    """Random changes of training inputs, applied in this order; a changed example is a view of it."""

    augment: bool = Field(False, description="Apply the task's augment(features, seed) to training inputs.")
    noise: Spread | dict[str, Spread] | None = Field(
        None,
        description="Standard deviation of Gaussian noise on float features, in standard deviations of each of their "
        "elements; per feature, or one for all; null: none.",
    )
    swap: Probability | dict[str, Probability] | None = Field(
        None,
        description="Probability that an element of a feature is taken from another example of the batch; per feature, "
        "or one for all; null: none.",
    )
    mixup: Spread | None = Field(
        None,
        description="Parameter a of Beta(a, a), from which mixup draws the share of an example that is mixed with "
        "another; float features only; null: none.",
    )

    def input_changes(self) -> "InputChanges":
        """Returns these four settings alone."""
        return InputChanges(**{name: getattr(self, name) for name in InputChanges.model_fields})

    def changes_inputs(self) -> bool:
        """Returns whether training inputs are changed at all."""
        return bool(self.augment or self.noise or self.swap or self.mixup)
