"""Networks that learn a language from masked text, for trainings to start from."""

from pydantic import Field, model_validator

from stillhouse.modules.settings.distillation import Hint, Schedule, Share, Temperature
from stillhouse.modules.settings.section import Section
from stillhouse.modules.settings.training import Training

# DistilBERT's weights (its training script): soft targets 5, masked language model 2, cosine 1. Divided by the sum of
# the first two they are alpha, 1 - alpha, and the weight of a hint.
DISTILBERT_ALPHA = 5 / 7


class LanguageDistillation(Section):
    """DistilBERT's first step: a masked language model learns from a larger one."""

    teacher: str = Field(description="Name of the pre-training that is the teacher; it stands above.")
    temperature: Temperature = Field(
        Schedule(start=2.0, end=2.0), description="T > 0, by which logits are divided in the soft term, or a schedule."
    )
    alpha: Share = Field(
        Schedule(start=DISTILBERT_ALPHA, end=DISTILBERT_ALPHA),
        description="Weight of the soft term, 0 to 1; that of the masked language model is 1 - alpha; or a schedule.",
    )
    hints: list[Hint] = Field([], description="Hidden layers to be guided by the teacher's, which is number 1.")


class Pretraining(Training):
    """A masked language model; the task's build_language_model (or `builder`) builds it."""

    tokens: str = Field("tokens", description="Transformed feature with ids of sub-words; 0 to 4 are reserved.")
    mask_share: float = Field(0.15, gt=0, lt=1, description="Share of the sub-words that are masked.")
    distillation: LanguageDistillation | None = Field(None, description="A larger one to learn from; none: plain.")

    @model_validator(mode="after")
    def _check_use(self):
        for name in ("warm_start", "augment"):
            if getattr(self, name):
                raise ValueError(f"{name} is of no use in a pre-training")
        if self.distillation and any(hint.teacher != 1 for hint in self.distillation.hints):
            raise ValueError("distillation.hints: the only teacher is number 1")
        return self
