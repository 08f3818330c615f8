"""The settings of pruning: how much of a model is removed, and how it is chosen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from toolchain.compress.step import ModelStep
from toolchain.core.settings import Bytes

Method = Literal["structured", "magnitude", "n:m"]
Importance = Literal["l1", "l2", "taylor", "bn-scale", "hessian"]
Scope = Literal["layer", "global"]
Share = Annotated[float, Field(gt=0, lt=1)]

_STRUCTURED_ONLY = ("macs", "parameters", "bytes", "importance", "round_to")


class PruneSettings(ModelStep):
    """The settings of pruning; `Prune` documents and applies them."""

    kind: Literal["prune"] = "prune"
    method: Method = "structured"
    ratio: Share | None = Field(default=None, description="share of the channels, or of the weights, that goes")
    macs: int | None = Field(default=None, ge=1, le=10**15, description="most multiply-accumulates an image")
    parameters: int | None = Field(default=None, ge=1, le=10**15, description="most parameters")
    bytes: Bytes | None = Field(default=None, description="most bytes of float parameters, 4 each")
    layers: dict[str, Share] = Field(default_factory=dict, description='ratios of single layers, "conv1" = 0.25')
    pattern: str = Field(default="2:4", pattern=r"^[1-9]\d?:[1-9]\d?$", description="n:m: how many of how many stay")
    importance: Importance = Field(default="l2", description="which channels go first: the least important")
    scope: Scope = Field(default="layer", description="the same ratio in each layer, or one ranking over all")
    iterations: int = Field(default=1, ge=1, le=100, description="rounds, each of pruning and fine-tuning")
    epochs: int = Field(default=4, ge=0, le=100_000, description="epochs of fine-tuning on the train split a round")
    soft: float = Field(default=0.0, ge=0, le=1, description="fine-tuning: weight of the whole model's answers")
    temperature: float = Field(default=2.0, ge=1, le=20, description="softens those answers, where they count")
    round_to: int = Field(default=8, ge=1, le=4096, description="channel counts are kept multiples of this")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        amounts = [name for name in ("ratio", "macs", "parameters", "bytes") if getattr(self, name) is not None]
        if len(amounts) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in amounts)} exclude each other; give one of them")
        if self.layers and amounts and amounts != ["ratio"]:
            raise ValueError(f"`layers` and `{amounts[0]}` exclude each other; give `layers` alone or with `ratio`")
        if self.layers and self.scope == "global":
            raise ValueError("`layers` and `scope` global exclude each other; take `scope` layer")
        if self.method == "n:m":
            self._check_pattern(amounts)
        elif not amounts and not self.layers:
            raise ValueError(
                "it does not say how much to prune; give `ratio`, `macs`, `parameters`, `bytes` or `layers`"
            )
        self._check_method()
        return self

    def _check_pattern(self, amounts: list[str]) -> None:
        stay, of = self.n_of_m
        if stay >= of:
            raise ValueError(f"`pattern` {self.pattern} keeps every weight; keep fewer than there are, such as 2:4")
        if amounts or self.layers or self.scope != "layer" or self.iterations != 1:
            raise ValueError(
                "n:m takes `pattern` alone; `ratio`, `layers`, `scope` and `iterations` belong to other methods"
            )

    def _check_method(self) -> None:
        fields = type(self).model_fields
        foreign: tuple[str, ...] = () if self.method == "structured" else _STRUCTURED_ONLY
        if self.method != "n:m":
            foreign += ("pattern",)
        for name in foreign:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` does not belong to `method` {self.method}; leave it out")

    @property
    def n_of_m(self) -> tuple[int, int]:
        """Return the two numbers of `pattern`."""
        stay, _, of = self.pattern.partition(":")
        return int(stay), int(of)
