"""TrainSettings: the hyperparameters of a training, each with its limits and its help."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from targets.errors import nearest
from targets.host.text import as_written
from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import counted

OPTIMIZERS: dict[str, dict[str, float]] = {
    "adamw": {"lr": 4e-3, "momentum": 0.0, "weight_decay": 0.02},
    "adam": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0},
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "rmsprop": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0},
}
"""Optimizer -> the values that another optimizer's learning rate, momentum and weight decay are replaced with."""
SCHEDULES = ("one-cycle", "cosine", "step", "plateau", "constant")
SAMPLINGS = ("shuffled", "balanced")
PRECISIONS = ("float32", "bfloat16")
DEVICES = ("cpu", "auto", "cuda")


@dataclass(frozen=True)
class Setting:
    """What a field of TrainSettings may be, and what its help says.

    panel: title of the part of the help in which it stands. least, most: limits of a number, which itself is not
    allowed where above or below is True. choices: of a string.
    """

    panel: str
    help: str
    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False
    choices: tuple[str, ...] = ()

    def problem(self, value: object, default: object) -> str:
        """Return what to give instead of an impossible value, or an empty string; default: a value of its type."""
        if self.choices:
            return "" if value in self.choices else nearest(str(value), self.choices, f"give {_listed(self.choices)}")
        if isinstance(default, bool):
            return "" if isinstance(value, bool) else "give true or false"
        kind = int if isinstance(default, int) else (int, float)
        number = value if isinstance(value, kind) and not isinstance(value, bool) else math.nan
        is_possible = (self.least < number if self.above else self.least <= number) and (
            number < self.most if self.below else number <= self.most
        )
        return "" if is_possible else f"give {'a whole number ' * (kind is int)}{self._range()}"

    def _range(self) -> str:
        least = f"{'above' if self.above else 'from'} {self.least:g}"
        return f"{least} {'to below' if self.below else 'to'} {self.most:g}"


def _setting(default: Any, panel: str, text: str, **limits: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(panel, text, **limits)})


STEPS, RATE, LOSS = "Epochs and batches", "Optimizer and learning rate", "Loss and classes"
RESULT, AUGMENTATION = "Which weights are the result", "Augmentation (drawn anew for each image, no mirroring)"


@dataclass(frozen=True)
class TrainSettings:
    """How a model is fitted; `SETTINGS` describes every field.

    Papers: one-cycle learning rate (Smith, arXiv:1708.07120), label smoothing (Szegedy, arXiv:1512.00567), mixup
    (Zhang, arXiv:1710.09412), logit adjustment (Menon, arXiv:2007.07314), elastic distortions (Simard, ICDAR 2003).
    """

    epochs: int = _setting(24, STEPS, "Passes over the training images.", least=1, most=100_000)
    batch: int = _setting(256, STEPS, "Images per step; at most all of them.", least=2, most=65_536)
    lr: float = _setting(4e-3, RATE, "Learning rate; of a schedule its highest.", most=1, above=True)
    weight_decay: float = _setting(
        0.02, RATE, "Decoupled from the gradient in adamw, a part of it in the others.", most=10
    )
    label_smoothing: float = _setting(
        0.1, LOSS, "Share of each target that is spread over all classes.", most=1, below=True
    )
    ema: float = _setting(
        0.998,
        RESULT,
        "Decay per step of the averaged weights, which are measured and saved; 0 takes the last step's.",
        most=1,
        below=True,
    )
    balance: float = _setting(
        1.0,
        LOSS,
        "Fit for classes that are equally frequent in use (1) or as frequent as in training (0), by adding the "
        "logarithm of the frequencies to the logits. Try it first; no effect where all are equally frequent.",
        most=1,
    )
    augment: float = _setting(1.0, AUGMENTATION, "Factor on all that follow; 0 for none.", most=3)
    held_out: float = _setting(
        0.02,
        STEPS,
        "Share of each class that is not fitted and gives the accuracy after each epoch; 0 for none.",
        most=0.5,
    )
    precision: str = _setting(
        "float32",
        STEPS,
        "Of the layers' arithmetic; bfloat16 takes half the time on CPUs that compute with it, longer on others.",
        choices=PRECISIONS,
    )
    device: str = _setting(
        "cpu",
        STEPS,
        "What trains: cpu, cuda (an NVIDIA GPU), or auto, which is the GPU where torch can use one and else the CPU. "
        "Only the CPU gives the same weights again.",
        choices=DEVICES,
    )
    optimizer: str = _setting(
        "adamw",
        RATE,
        "Another one than the preset's comes with a usual --lr, --momentum and --weight-decay.",
        choices=tuple(OPTIMIZERS),
    )
    momentum: float = _setting(0.0, RATE, "Of sgd and rmsprop.", most=1, below=True)
    schedule: str = _setting(
        "one-cycle",
        RATE,
        "How the learning rate changes: one-cycle rises and falls, cosine falls to 0, step falls every few epochs, "
        "plateau falls when the held-out accuracy does not rise.",
        choices=SCHEDULES,
    )
    step_epochs: int = _setting(10, RATE, "Schedule step: epochs at the same rate.", least=1, most=100_000)
    step_factor: float = _setting(0.1, RATE, "Schedule step: factor after them.", most=1, above=True, below=True)
    plateau_epochs: int = _setting(
        3, RATE, "Schedule plateau: epochs without a better held-out accuracy.", least=1, most=100_000
    )
    plateau_factor: float = _setting(0.5, RATE, "Schedule plateau: factor after them.", most=1, above=True, below=True)
    class_weights: bool = _setting(
        False,
        LOSS,
        "Weigh the loss of each class by its inverse frequency, instead of --balance: keeps every image once an epoch, "
        "but rare classes pull hard where they have very few.",
    )
    sampling: str = _setting(
        "shuffled",
        LOSS,
        "balanced draws all classes equally often, instead of --balance: rare images repeat, frequent ones are left "
        "out; steadier than --class-weights where a class has very few.",
        choices=SAMPLINGS,
    )
    mixup: float = _setting(
        0.0, LOSS, "Mix pairs of images and of their targets by a share from Beta(A, A); 0 for none.", most=10
    )
    patience: int = _setting(
        0,
        RESULT,
        "Stop after so many epochs without a better held-out accuracy, and keep the best epoch; 0 runs all epochs "
        "and keeps the last.",
        most=100_000,
    )
    rotation: float = _setting(12.0, AUGMENTATION, "Degrees, at most, in both directions.", most=180)
    zoom: float = _setting(0.13, AUGMENTATION, "Share by which width and height change, at most.", most=0.9)
    shift: float = _setting(0.065, AUGMENTATION, "Share of the image's width and height, at most.", most=0.5)
    shear: float = _setting(0.2, AUGMENTATION, "Pixels sideways per pixel of height, at most.", most=1)
    elastic: float = _setting(
        0.0, AUGMENTATION, "Elastic distortion: Simard's strength, such as 34; 0 for none.", most=1000
    )
    elastic_sigma: float = _setting(
        4.0, AUGMENTATION, "Elastic distortion: pixels over which it is smoothed.", least=1, most=28
    )

    def __post_init__(self) -> None:
        """Raise UsageProblem for an impossible value, and for two that exclude each other."""
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if advice := setting.problem(value, DEFAULTS[name]):
                raise UsageProblem(f"`{name}` cannot be {as_written(value)}; {advice}")
        self._check_classes()
        if self.momentum and self.optimizer in ("adam", "adamw"):
            raise UsageProblem(f"`momentum` belongs to sgd and rmsprop; {self.optimizer} has its own, so leave it out")
        if self.held_out == 0 and self.needs_held_out:
            # A preset may have brought it, so the message says how to turn it off too.
            name, other = (
                (f"`patience` {self.patience}", "`patience` 0")
                if self.patience
                else ("`schedule` plateau", "another `schedule`")
            )
            raise UsageProblem(
                f"{name} needs the accuracy on held-out images; give `held_out` above 0, such as 0.1, or {other}"
            )

    @property
    def needs_held_out(self) -> bool:
        """Return whether the training itself depends on the accuracy on held-out images."""
        return self.patience > 0 or self.schedule == "plateau"

    def _check_classes(self) -> None:
        corrections = {
            "`class_weights`": self.class_weights,
            "`sampling` balanced": self.sampling == "balanced",
            f"`balance` {self.balance:g}": self.balance > 0,
        }
        active = [name for name, is_active in corrections.items() if is_active]
        if len(active) > 1:
            raise UsageProblem(f"{' and '.join(active)} would correct twice for rare classes; give one of them")

    def changed(self, **values: float | str | None) -> TrainSettings:
        """Return the settings with every value replaced that is not None.

        Another optimizer brings its usual values, and class weights or balanced sampling replace `balance`, where these
        are not given. Raises UsageProblem for an unknown name, and for a value without effect.
        """
        given = {name: value for name, value in values.items() if value is not None}
        for name in given.keys() - SETTINGS.keys():
            other = "model, seed, threads and files are given by options of their own, such as --seed"
            raise UsageProblem(f"unknown setting `{name}`; {nearest(name, SETTINGS, other)}")
        implied: dict[str, Any] = {}
        if (optimizer := given.get("optimizer", self.optimizer)) != self.optimizer:
            implied |= OPTIMIZERS.get(str(optimizer), {})
        if given.get("class_weights") or given.get("sampling") == "balanced":
            implied["balance"] = 0.0
        result = replace(self, **implied | given)
        for name in given:
            result._check_effect(name)
        return result

    def _check_effect(self, name: str) -> None:
        """Raise UsageProblem where the value of this setting would change nothing."""
        prefix = name.partition("_")[0]
        if prefix in ("step", "plateau") and self.schedule != prefix:
            raise UsageProblem(f"`{name}` belongs to `schedule` {prefix}, not to {self.schedule}; give that too")
        if name == "elastic_sigma" and not self.elastic:
            raise UsageProblem("`elastic_sigma` needs `elastic`; give that too, such as 34")
        if name in SHAPES and getattr(self, name) and not self.augment:
            raise UsageProblem(f"`{name}` has no effect with `augment` 0; give that too, such as 1")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types. Those that came later are left out where they equal their defaults.

        So the description of a training that needs none of them is the same in files of every version.
        """
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: value for name, value in values.items() if name in _FIRST or value != DEFAULTS[name]}

    def summary(self) -> str:
        """Return in one line what a training with these settings does."""
        rate = f"{self.optimizer} at {self.lr:g} {self.schedule}"
        parts = [rate, f"batch {self.batch}", f"{counted(self.epochs, 'epoch')}"]
        parts += [f"patience {self.patience}"] if self.patience else []
        parts += ["class weights"] if self.class_weights else []
        parts += ["balanced sampling"] if self.sampling == "balanced" else []
        parts += [f"mixup {self.mixup:g}"] if self.mixup else []
        parts += [self.precision] if self.precision != "float32" else []
        parts += [f"device {self.device}"] if self.device != "cpu" else []
        shapes = [f"{name} {self.augment * value:.3g}" for name in SHAPES if (value := getattr(self, name))]
        return f"{', '.join(parts)}; augmentation: {', '.join(shapes) if self.augment and shapes else 'none'}"


SETTINGS: dict[str, Setting] = {entry.name: entry.metadata["setting"] for entry in fields(TrainSettings)}
DEFAULTS: dict[str, Any] = {entry.name: entry.default for entry in fields(TrainSettings)}
SHAPES = ("rotation", "zoom", "shift", "shear", "elastic")
"""The settings that `augment` is a factor on."""
_FIRST = ("epochs", "batch", "lr", "weight_decay", "label_smoothing", "ema", "balance", "augment", "held_out")


def _listed(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
