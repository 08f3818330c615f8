"""What every step shares: its values stay as they are, and an unknown key is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen table of settings in which a typo is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
