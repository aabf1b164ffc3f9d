"""What every part of the settings file is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
