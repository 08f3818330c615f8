"""Options that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import rich_click as click
from click.core import ParameterSource

from calibration.listener import Listener, listening
from calibration.spec import with_classes
from toolchain.cli import complete, console, values
from toolchain.cli.kept_inputs import refuse_replaced_inputs
from toolchain.core.errors import GlyphpressError

if TYPE_CHECKING:
    from toolchain.gate.policy import Policy

Command = TypeVar("Command", bound=Callable[..., Any])


_SEED = click.option("--seed", type=values.SEED, default=0, show_default=True, help="Seed of every random choice.")
_RESUME = click.option(
    "--resume", is_flag=True, help="Continue where a killed run of this command stopped; the result has the same bits."
)
_FORCE = click.option("--force", is_flag=True, help="Overwrite existing results.")


def _threads_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--threads",
        type=values.THREADS,
        default=default,
        show_default=True,
        help="Number of threads; 0 uses all cores.",
    )


def run_options(
    *, seed: bool = False, threads: int | None = None, resume: bool = False, force: bool = False
) -> Callable[[Command], Command]:
    """Add those of `--seed`, `--threads`, `--resume` and `--force` that a command takes.

    threads: the default of that option. The command gets one `context: RunContext` of them, of `--data-root` if it has
    that option, and of what shows the user the progress.
    """
    added = [_SEED] if seed else []
    added += [_threads_option(threads)] if threads is not None else []
    added += [_RESUME] if resume else []
    added += [_FORCE] if force else []

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            from toolchain.core.context import RunContext

            names = ("seed", "threads", "resume", "force", "data_root")
            settings = {name: kwargs.pop(name) for name in names if name in kwargs}
            if settings.get("force"):
                refuse_replaced_inputs(_context())
            with console.progress() as progress, listening(Listener(_once(console.say), progress)):
                context = RunContext(progress=progress, say=console.say, **settings)
                return command(*args, context=context, **kwargs)

        return with_options(cast(Command, wrapped), added)

    return decorate


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Say each line once: a command may load the same images several times."""
    said: set[str] = set()

    def say_new(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_new


def with_options(command: Command, added: Sequence[Callable[[Command], Command]]) -> Command:
    """Add options to a command, so that its help lists them in this order."""
    for option in reversed(added):
        command = option(command)
    return command


def was_given(name: str) -> bool:
    """Return whether an option of the command that runs was given; name: of its parameter."""
    return _context().get_parameter_source(name) is not ParameterSource.DEFAULT


def _context() -> click.Context:
    ctx = click.get_current_context()
    assert ctx, "a command is running"
    return ctx


def names_options(**other_names: str) -> Callable[[Command], Command]:
    """Let the errors of a command name its options: a recipe's key, in backquotes, becomes the option that sets it.

    `layers.conv1` becomes `--layer conv1`.

    other_names: key -> option, where the option is not called as the key is.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return command(*args, **kwargs)
            except GlyphpressError as error:
                names = {param.name: param.opts[0] for param in _context().command.params} | other_names

                def option(key: re.Match[str]) -> str:
                    return " ".join([names[key[1]], *(key[2] or "").split(".", 1)[1:]]) if key[1] in names else key[0]

                error.args = (re.sub(r"`(\w+)(\.[^`]+)?`", option, str(error)),)
                raise

        return cast(Command, wrapped)

    return decorate


def refuse_missing_root(ctx: click.Context, param: click.Parameter, folder: Path | None) -> Path | None:
    """Raise click.BadParameter where the folder was named on the command line and is not there.

    GLYPHPRESS_DATA may be set for all commands, and its disk may be away while other images are read.
    """
    is_asked_for = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    if folder and is_asked_for and not folder.is_dir() and not ctx.resilient_parsing:
        raise click.BadParameter(f"{folder}: no such folder; give one with EMNIST's files, or leave it out", ctx, param)
    return folder


def data_option(command: Command) -> Command:
    """Add `--data` (required) and `--data-root`."""
    return _data_options(command, required=True)


def optional_data_option(command: Command) -> Command:
    """Add `--data` and `--data-root` where saved evaluations can stand in for the images."""
    return _data_options(command, required=False)


def _data_options(command: Command, *, required: bool) -> Command:
    command = click.option(
        "--data-root",
        type=values.FOLDER,
        envvar="GLYPHPRESS_DATA",
        callback=refuse_missing_root,
        help="Folder that is searched first for EMNIST's files.",
    )(command)
    return click.option(
        "--data",
        "data",
        required=required,
        metavar="DATA",
        shell_complete=complete.DATA,
        help="builtin:digits, emnist:SPLIT, DIR:SPLIT, a folder of pictures, or a CSV, MATLAB or parquet FILE; append "
        "[A-Z] to choose classes, or /test to split that file alone.",
    )(command)


def classes_option(command: Command) -> Command:
    """Add `--classes`, which narrows `--data` as brackets behind it do."""

    @functools.wraps(command)
    def wrapped(*args: Any, classes: tuple[str, ...] | None, data: str | None, **kwargs: Any) -> Any:
        if classes and data is None:
            raise click.UsageError("--classes chooses among the images of --data; give it too")
        return command(*args, data=with_classes(data, classes) if classes and data else data, **kwargs)

    return click.option(
        "--classes",
        type=values.CLASSES,
        metavar="CLASSES",
        shell_complete=complete.CLASSES,
        help="Use only these classes, such as 0-9A-Z or cat,dog; the same as DATA[0-9A-Z].",
    )(cast(Command, wrapped))


def data_words(data: str | None, data_root: Path | None) -> list[str]:
    """Return `--data` and `--data-root` as they were given, for a command that is shown."""
    root = ["--data-root", str(data_root)] if data_root else []
    return ["--data", data, *root] if data else []


def json_option(command: Command) -> Command:
    """Add `--json`: exactly one JSON object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


def packed_option(command: Command) -> Command:
    """Add `--packed`: the packed size of large files too, which takes long."""
    text = "Measure the packed size of files over 8 MB too (zstd, level 19, slow)."
    return click.option("--packed", is_flag=True, help=text)(command)


def limit_options(*names: str, condition: str = "") -> Callable[[Command], Command]:
    """Add `--policy` and `--max-NAME` for each of the limits; the command gets them as one `limits: Limits`.

    condition: what stands before each option's help, such as "with --fallback: ".
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, policy_name: str | None, **kwargs: Any) -> Any:
            return command(*args, limits=Limits(policy_name, {name: kwargs.pop(name) for name in names}), **kwargs)

        added = [_policy_option(condition), *(_limit_option(name, condition) for name in names)]
        return with_options(cast(Command, wrapped), added)

    return decorate


@dataclass(frozen=True)
class Limits:
    """What `--policy` says, and the options that replace single limits of it; None where one was not given."""

    policy: str | None
    maxima: Mapping[str, float | None]

    def __bool__(self) -> bool:
        """Return whether any of the options was given."""
        return bool(self.policy) or any(limit is not None for limit in self.maxima.values())

    def chosen(self) -> Policy:
        """Return the policy with the limits that replace its own; raises PolicyError."""
        from toolchain.gate.policy import choose_policy

        return choose_policy(self.policy, **self.maxima)


_MAXIMA: dict[str, tuple[values.Quantity, str]] = {
    "drop": (values.POINTS, "largest drop in accuracy"),
    "size": (values.SIZE, "largest file size"),
    "p50": (values.DURATION, "largest median latency at batch 1"),
    "p95": (values.DURATION, "largest P95 latency at batch 1"),
}


def _policy_option(condition: str) -> Callable[[Command], Command]:
    text = f"{condition}the limits: default, strict, smoke, or a TOML file."
    return click.option(
        "--policy", "policy_name", metavar="POLICY", shell_complete=complete.POLICY, help=_sentence(text)
    )


def _limit_option(name: str, condition: str) -> Callable[[Command], Command]:
    kind, what = _MAXIMA[name]
    text = f"{condition}{what}, instead of the policy's."
    return click.option(f"--max-{name}", name, type=kind, help=_sentence(text))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def target_option(command: Command) -> Command:
    """Add `--target`; without it the file's format decides (ort-cpu, litert-cpu)."""
    return click.option(
        "--target",
        metavar="TARGET",
        shell_complete=complete.TARGET,
        help="Target to run on. Default: ort-cpu for .onnx, litert-cpu for .tflite.",
    )(command)
