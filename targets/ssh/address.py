"""The address of a board, as ssh takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from targets.errors import UnknownTarget

_FORM = re.compile(r"//(?:(?P<user>[\w.][\w.-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.][\w.-]*)(?::(?P<port>\d{1,5}))?/?")


@dataclass(frozen=True)
class Address:
    """A host, or a name in the user's ssh configuration; no user or port leaves both to that configuration."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, rest: str) -> Address:
        """Read what follows `ssh:` in a target word; raises UnknownTarget."""
        match = _FORM.fullmatch(rest)
        if not match or int(match["port"] or 1) not in range(1, 65536):
            raise UnknownTarget(f"no address 'ssh:{rest}'; give ssh://[USER@]HOST[:PORT]")
        return cls(match["host"].strip("[]"), match["user"] or "", int(match["port"] or 0))

    def __str__(self) -> str:
        """Return the target word."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.destination.removesuffix(self.host)}{host}{f':{self.port}' * bool(self.port)}"

    @property
    def destination(self) -> str:
        """`user@host`, or the host alone."""
        return f"{self.user}@{self.host}" if self.user else self.host
