"""The whole error tree and the exit code of each family (`glyphpress help exit-codes`).

GlyphpressError                          exit
├── UsageProblem                         2   an invalid request: unknown recipe, impossible combination
├── CheckpointError                      3   a file that is not a loadable model
│   ├── OptionNeeded                     3   one that only --model or --trust-pickle loads
│   ├── ClassesUnknown                   3   neither file nor options say which classes a model reads
│   └── PreprocessUnknown                3   neither file nor images say how a model wants its images
│       └── PreprocessTied               3   the images do not decide between several ways
├── StageError                           3   a stage (train, prune, quantize ...) could not finish
│   ├── ParityError                      3   a converted file differs from the model it was made from
│   └── TaintedRun                       3   the machine was busy while timing, and --strict refuses that
├── PackageMissing                       4   an optional package is not installed; says the pip line
├── PolicyError                          2   a policy or recipe file with unknown keys or impossible values
├── EvidenceError                        3   evaluations that do not belong together, NaN logits, zero images
├── GateFailed                           1   a verdict is FAIL
└── GateInconclusive                     5   no FAIL, but a verdict could not be reached
calibration.errors.DataError             3   (UnknownData 2)
targets.errors.TargetError               3   (UnknownTarget 2, TargetUnavailable 4)
glyphpress.registry.PluginFailed         4   a plug-in that was asked for is refused, does not load, or gives no verdict
OSError                                  3   full disk, no permission
KeyboardInterrupt                        130 Ctrl-C, SIGTERM
any other exception                      70  a bug: it keeps its traceback, and never looks like a failed gate

The two leaf packages have roots of their own because they never import this one.
"""

from calibration.errors import DataError, ReaderMissing, UnknownData
from glyphpress.registry import PluginFailed
from targets.errors import TargetError, TargetUnavailable, UnknownTarget


class GlyphpressError(Exception):
    """Root of the errors of `toolchain`; the message is one line, and says what to do."""


class UsageProblem(GlyphpressError):
    """The request itself is invalid."""


class CheckpointError(GlyphpressError):
    """A checkpoint that cannot be loaded as a model."""


class OptionNeeded(CheckpointError):
    """A checkpoint that is loaded with --model or --trust-pickle alone; the message names the option."""


class ClassesUnknown(CheckpointError):
    """Neither the file nor the caller says which classes a model reads."""


class PreprocessUnknown(CheckpointError):
    """It is not known how a model wants its images, and cannot be found; the message ends with options."""


class StageError(GlyphpressError):
    """A stage could not finish; no partial file is left."""


class ParityError(StageError):
    """A converted file gives other answers than the model it was made from."""


class TaintedRun(StageError):
    """The machine was throttled, hot or busy while something was timed."""


class PackageMissing(GlyphpressError):
    """An optional package is missing; the message holds the pip line that adds it."""


class PolicyError(GlyphpressError):
    """A policy or recipe with unknown keys or impossible values."""


class EvidenceError(GlyphpressError):
    """Evaluations or timings that cannot be judged: foreign, empty or not finite."""


class GateFailed(GlyphpressError):
    """At least one verdict is FAIL."""


class GateInconclusive(GlyphpressError):
    """No verdict is FAIL, but at least one could not be reached."""


BUG = 70
"""EX_SOFTWARE of sysexits.h."""

# First match wins, so a subclass stands before its base.
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (GateFailed, 1),
    (GateInconclusive, 5),
    (UsageProblem, 2),
    (PolicyError, 2),
    (UnknownData, 2),
    (UnknownTarget, 2),
    (PackageMissing, 4),
    (TargetUnavailable, 4),
    (PluginFailed, 4),
    (ReaderMissing, 4),
    (GlyphpressError, 3),
    (DataError, 3),
    (TargetError, 3),
    (OSError, 3),
    (MemoryError, 3),
    (KeyboardInterrupt, 130),
    (BaseException, BUG),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error; BUG for one outside the tree."""
    return next(code for family, code in EXIT_CODES if isinstance(error, family))
