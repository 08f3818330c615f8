"""The shells' side of completion: how Bash, Zsh and Fish hand over a line, and how an answer is written for them."""

from __future__ import annotations

import os
import re

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from glyphpress.registry import tell_problems

_JOINED = re.compile(r"[:=@]+")
"""Bash makes words of these (COMP_WORDBREAKS), which stand inside our values: emnist:balanced, conv1=25%, pi@board."""
_UNFINISHED = ":=/"
"""A value that ends in one of these goes on: no space follows it. Fish does the same by itself."""


class _Bash(BashComplete):
    """Bash splits `emnist:bal` and `--recipe=st`, so words are joined again; it replaces the last part."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)",
        f"COMPREPLY+=($value)\n            [[ $value == *[{_UNFINISHED}] ]] && compopt -o nospace",
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        args, begun = super().get_completion_args()
        joined: list[str] = []
        self.before, goes_on = "", False
        for word in (*args, begun):
            separates = bool(_JOINED.fullmatch(word)) and bool(joined)
            if word == "=" and joined and joined[-1].startswith("--"):
                goes_on = False  # behind it stands the option's value
            elif word and (separates or goes_on):
                self.before, goes_on = joined[-1] + (word if separates else ""), separates
                joined[-1] += word
            else:
                self.before, goes_on = "", False
                joined.append(word)
        if begun == "=" and not goes_on:
            joined.append("")
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        value = item.value.removeprefix(self.before)
        # Bash does not quote what it inserts, and `read` in the script removes one backslash.
        quoted = re.sub(r"([^\w@%+=:,./~\[\]-])", r"\\\\\1", value) if item.type == "plain" else value
        return f"{item.type},{quoted}"


class _WholeWords(ShellComplete):
    """A shell that replaces `--recipe=st` as a whole, where Click takes `--recipe=` off and offers values alone."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, begun = super().get_completion_args()
        self.option = begun[: begun.index("=") + 1] if begun.startswith("--") and "=" in begun else ""
        return args, begun

    def format_completion(self, item: CompletionItem[str]) -> str:
        whole = CompletionItem(self.option + item.value, item.type, item.help) if item.type == "plain" else item
        return super().format_completion(whole)


class _Zsh(_WholeWords, ZshComplete):
    """Zsh adds a space to a value unless it is told that the value goes on."""

    source_template = (
        ZshComplete.source_template.replace(
            '            if [[ "$descr" == "_" ]]; then',
            f'            if [[ "$descr" == "_" && "$key" == *[{_UNFINISHED}] ]]; then\n'
            '                unfinished+=("$key")\n'
            '            elif [[ "$descr" == "_" ]]; then',
        )
        .replace(
            '    if [ -n "$completions" ]; then',
            '    if [ -n "$unfinished" ]; then\n'
            "        compadd -U -S '' -V unsorted -a unfinished\n"
            "    fi\n\n"
            '    if [ -n "$completions" ]; then',
        )
        .replace("    local -a response\n", "    local -a response\n    local -a unfinished\n")
    )


class _Fish(_WholeWords, FishComplete):
    """Fish cuts no value at its commas (`cat,dog`)."""

    source_template = FishComplete.source_template.replace("string split", "string split --max 1")


def register() -> None:
    """Register the completion for the three shells if one of them asks for completion."""
    if "_GLYPHPRESS_COMPLETE" in os.environ:
        for shell in (_Bash, _Zsh, _Fish):
            add_completion_class(shell)
        tell_problems(lambda _text: None)  # a warning would stand in the middle of the command line
