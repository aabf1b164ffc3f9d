"""Settings of masked language models that other training jobs start from."""

from pydantic import Field, model_validator

from stillhouse.modules.settings.distillation import Hint, Schedule, Share, Temperature
from stillhouse.modules.settings.input_changes import InputChanges
from stillhouse.modules.settings.section import Section
from stillhouse.modules.settings.training import Training

# DistilBERT's weights (its training script): soft targets 5, masked language model 2, cosine 1. Divided by the sum of
# the first two they are alpha, 1 - alpha, and the weight of a hint.
DISTILBERT_ALPHA = 5 / 7


class LanguageDistillation(Section):
    """DistilBERT's first step: distils a masked language model from a larger one."""

    teacher: str = Field(description="Name of an earlier pre-training entry, the teacher.")
    temperature: Temperature = Field(
        Schedule(start=2.0, end=2.0),
        description="Temperature T > 0 that divides logits in the soft term, or a schedule.",
    )
    alpha: Share = Field(
        Schedule(start=DISTILBERT_ALPHA, end=DISTILBERT_ALPHA),
        description="Weight of the soft term, 0 to 1, or a schedule; masked language modelling's is 1 - alpha.",
    )
    hints: list[Hint] = Field([], description="Hidden layers trained to match the teacher's (teacher: 1); []: none.")


class Pretraining(Training):
    """A masked language model; the task's build_language_model (or `builder`) builds it."""

    tokens: str = Field("tokens", description="Transformed feature with ids of subword tokens; 0 to 4 are reserved.")
    mask_share: float = Field(0.15, gt=0, lt=1, description="Fraction of the subword tokens that is masked.")
    distillation: LanguageDistillation | None = Field(
        None, description="Larger network to distil from; null: no distillation."
    )

    @model_validator(mode="after")
    def _check_use(self):
        for name in ("warm_start", *InputChanges.model_fields):
            if getattr(self, name):
                raise ValueError(f"{name}: not valid in a pre-training; remove it")
        if self.distillation and any(hint.teacher != 1 for hint in self.distillation.hints):
            raise ValueError("distillation.hints: teacher must be 1, the only one")
        return self
