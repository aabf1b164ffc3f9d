"""Base class of the sections of a settings file."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the settings; unknown keys are rejected, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
