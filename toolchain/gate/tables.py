"""The limits of a policy: one table a question, each with its own margin, confidence and action.

Shares and drops are fractions, sizes bytes, times seconds, ratios plain numbers; people write them with their units.
`confidence` is that of each one-sided decision: PASS and FAIL must both be shown at it, else INCONCLUSIVE.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from toolchain.written import Bytes, Points, Ratio, Seconds

Action = Literal["fail", "warn"]
Measure = Literal["share", "cost", "bytes", "seconds", "ratio", "count"]
DamageKind = Literal["skew", "blur", "threshold", "speckle", "faint", "thick"]
MOST = 2**31 - 1
"""Of a whole number: more images than any data set has."""
Confidence = Annotated[float, Field(gt=0.5, lt=1, description="of PASS and of FAIL, each shown one-sided")]
LookAlikes = Annotated[str, Field(min_length=2)]


def _misreading(value: object) -> object:
    truth, arrow, answer = str(value).partition("->")
    if not (truth and arrow and answer):
        raise ValueError('a misreading is written "truth->answer", such as "1->7"')
    return value


Misreading = Annotated[str, Field(pattern="^.+->.+$"), BeforeValidator(_misreading)]

CONFUSABLE = ("0OoDQ", "1Il7", "5Ss", "2Zz", "9gq", "6Gb", "8Bb", "UVuv", "4Yy", "Ff", "Ttf", "Nn")
"""Look-alikes of handwriting, as the shipped model confuses them; of each group the members that the data set has."""


class Table(BaseModel):
    """One table of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(Table):
    """A table that a verdict is given on. measure: what its `measured` and `bound` count."""

    measure: ClassVar[Measure]
    action: Action = Field(default="fail", description="warn: tell, but let it through")


class MarginLimit(Limit):
    """A table that is decided by confidence bounds of a share: its margin, and their one-sided confidence."""

    measure: ClassVar[Measure] = "share"
    max: Points
    confidence: Confidence = 0.95


class DropLimit(MarginLimit):
    """Fall in accuracy against the baseline: the margin of the non-inferiority test."""


class ClassesLimit(DropLimit):
    """The same of each class by itself; a class is only said to have failed after Holm's correction for all."""


class ConfusablesLimit(MarginLimit):
    """How much more often a character is read as one that looks like it, a group of look-alikes at a time.

    groups: strings of characters; of the ones that come by default only the members that the data set has count.
    margins: a margin of its own for a group, such as `"0Oo" = "1pp"`.
    """

    groups: tuple[LookAlikes, ...] = Field(default=CONFUSABLE, description="characters that look alike")
    margins: dict[LookAlikes, Points] = Field(
        default_factory=dict, description='of single groups, such as "0OoDQ" = "2pp"'
    )


class CostLimit(MarginLimit):
    """Rise of what misreadings cost, an image on average; a plain misreading costs 1.

    costs: what some misreadings cost instead, such as `"1->7" = 20` or `"O->0" = 0`.
    max: hundredths of a plain misreading an image, written `0.3pp`.
    """

    measure: ClassVar[Measure] = "cost"
    costs: dict[Misreading, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description='such as "1->7" = 20 or "O->0" = 0; any other misreading costs 1'
    )


class FlipsLimit(MarginLimit):
    """Share of the images whose answer changed at all."""


class RejectsLimit(MarginLimit):
    """Rise in the share of images that must be rejected so that at most `error` of the accepted ones are wrong."""

    error: Points = Field(
        default=0.01, description="share of the accepted images that may be wrong", json_schema_extra={"default": "1pp"}
    )


class EceLimit(MarginLimit):
    """Change of the expected calibration error, either way: how far confidence and accuracy lie apart."""


class StressLimit(MarginLimit):
    """Fall in accuracy under scanner damage, for each kind by itself, strengths 1 to 5 in turn over the images."""

    kinds: tuple[DamageKind, ...] = Field(
        default=("skew", "blur", "threshold", "speckle", "faint", "thick"), description="each is judged by itself"
    )
    strengths: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field(
        default=(1, 2, 3, 4, 5), description="1 to 5, in turn over the images"
    )
    seed: int = Field(default=0, ge=0, le=MOST, description="of the damage's chance")


class RuntimesLimit(Limit):
    """Images on which the candidate answers differently on another runtime or other kernels, at most `max` a place.

    targets: where else to run it; none means every place that takes its format and is there.
    """

    measure: ClassVar[Measure] = "count"
    max: int = Field(ge=0, le=MOST, strict=True)
    targets: tuple[str, ...] = Field(default=(), description="where else to run it; none: every place that is there")


class SizeLimit(Limit):
    """The largest file, in bytes: as it is, or packed by zstd as an update would carry it."""

    measure: ClassVar[Measure] = "bytes"
    max: Bytes


class MemoryLimit(SizeLimit):
    """The largest peak of resident memory that a session adds to a process, in bytes."""


class ShrinkLimit(Limit):
    """How many times smaller than the baseline the file must at least be."""

    measure: ClassVar[Measure] = "ratio"
    min: Ratio


class TimeLimit(Limit):
    """The largest latency of one inference, in seconds."""

    measure: ClassVar[Measure] = "seconds"
    max: Seconds
    confidence: Confidence = 0.99


class TimeRatioLimit(Limit):
    """The largest ratio of a latency to the baseline's, both timed in turns.

    At 99.9 %, so that of a hundred runs at a limit of 1.0x hardly one fails a file that is as fast as the baseline.
    """

    measure: ClassVar[Measure] = "ratio"
    max: Ratio
    confidence: Confidence = 0.999


class PreprocessLimit(Limit):
    """How many settings by which it takes images (turn, pixel values, label offset) may be unlike the baseline's.

    Judged without the table too, and then said only where it fails: an application feeds both files alike.
    """

    measure: ClassVar[Measure] = "count"
    max: int = Field(default=0, ge=0, le=3, strict=True)


class LeaksLimit(Limit):
    """How many test images may also be training or calibration images."""

    measure: ClassVar[Measure] = "count"
    max: int = Field(default=0, ge=0, le=MOST, strict=True)


class BaselinePin(Table):
    """What a baseline must be to be judged against, not a limit: how well it reads, and which stored one it is.

    min_accuracy: without it a quarter of the way from chance to all (27 % of 47 equal classes, 33 % of 10).
    """

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="`glyphpress gate baseline` prints it"
    )
    min_accuracy: Points | None = Field(default=None, description='of the baseline itself, such as "85%"')
