"""Kill commands at random moments and between their file operations, and look at what they leave.

`python -m tests.kills.run --kills 200` prints a line for each command and exits 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fixtures.archive_server import Behaviour, serving
from tests.kills.cases import CASES, Case
from tests.kills.content import Parts, Pattern, tree
from tests.kills.program import SIGNALS, Ended, Program

INTERRUPTED = 130


@dataclass
class Whole:
    """What runs without a kill leave. new: each file of one over nothing; old: a folder to kill others over.

    stages: what the first file may be meanwhile, as a checkpoint is one of each epoch in turn.
    """

    new: dict[str, Pattern]
    stages: list[Pattern]
    old: Path | None
    operations: int
    seconds: float
    gaps: list[int] = field(default_factory=list)
    """Operations before which the next kills fall; all have their turn before one has a second."""

    def unlike(self, case: Case, name: str, file: Parts) -> str:
        """Return what of a file no run could have written; empty where it is whole."""
        if name not in self.new:
            return "no run has such a file at its end"
        if any(not stage.unlike(file) for stage in self.stages if name == case.first):
            return ""
        return self.new[name].unlike(file)

    def result_unlike(self, case: Case, now: dict[str, Parts]) -> list[str]:
        """Return what keeps files from being the whole result of one run, an early stage of it included."""
        stage = case.first in self.new and not self.unlike(case, case.first, now.get(case.first, {}))
        return [fault for fault in self.new_unlike(now, case.result) if not (stage and f"{case.first} is not" in fault)]

    def new_unlike(self, now: dict[str, Parts], among: Callable[[str], bool] = lambda _name: True) -> list[str]:
        """Return what keeps files from being exactly those of a whole run."""
        expected = {name for name in self.new if among(name)}
        found = [f"{name} is missing" for name in sorted(expected - set(now))]
        found += [f"{name} is left" for name in sorted(set(now) - expected)]
        pairs = [(name, self.new[name].unlike(now[name])) for name in sorted(expected & set(now))]
        return found + [f"{name} is not new ({unlike})" for name, unlike in pairs if unlike]


class Killer:
    """Kills runs of cases, each in a folder of its own, and keeps what was wrong."""

    def __init__(self, program: Program, chance: random.Random) -> None:
        self.program, self.chance, self.faults = program, chance, list[str]()

    def whole(self, case: Case) -> Whole | None:
        """Run a case without a kill; return None, and say that in `faults`, where that fails already."""
        runs = list[tuple[dict[str, Parts], list[Parts]]]()
        for _ in range(2):
            folder = self.program.fresh()
            ended, operations, stages = self.program.counted(folder, case.command, case.first)
            if ended.code:
                self.faults.append(f"{case.name}: exit {ended.code} WITHOUT a kill, so not killed: {ended.said[-300:]}")
                return None
            runs.append((tree(folder, hidden=True), stages))
        (one, one_stages), (other, other_stages) = runs
        new = {name: Pattern.of(parts, other[name], case.varying(name)) for name, parts in one.items() if name in other}
        pairs = zip(one_stages, other_stages, strict=False) if case.stages else ()
        patterns = [Pattern.of(*pair, case.varying(case.first)) for pair in pairs]
        if blind := [name for name, pattern in new.items() if "" in one[name] and not pattern.settled]:
            self.faults.append(f"{case.name}: {blind} differ wholly from run to run, so they cannot be compared")
        if not case.old:
            return Whole(new, patterns, None, operations, ended.seconds)
        folder = self.program.fresh()
        before = self.program.run(folder, case.old)
        if before.code:
            self.faults.append(f"{case.name}: exit {before.code} of what makes the old result: {before.said[-300:]}")
            return None
        return Whole(new, patterns, self.program.keep(folder, case.name), operations, ended.seconds)

    def kill(self, case: Case, whole: Whole, share_between: float) -> str:
        """Kill one run, look at what is left, and run it again; return how it was killed."""
        number = self.chance.choice(SIGNALS)
        between, over_old = self.chance.random() < share_between, self.chance.random() < 0.4 and whole.old is not None
        moment = self.chance.random() * whole.seconds
        if not whole.gaps:
            whole.gaps = self.chance.sample(range(1, whole.operations + 1), whole.operations)
        folder = self.program.fresh(whole.old if over_old else None)
        before = tree(folder, hidden=False)
        words = (*case.command, "--force") if over_old else case.command
        how = f"{case.name}, {number.name}"
        if between:
            operation = whole.gaps.pop()
            how += f" at operation {operation}"
            ended = self.program.killed_at(folder, words, operation, number)
        else:
            how += f" after {moment:.2f} s"
            ended = self.program.killed_after(folder, words, moment, number)
        found = _wrong_end(ended, number) + self._wrong_files(case, whole, folder, before)
        found += self._wrong_again(case, whole, folder, before)
        self.faults += [f"{how}{', over an old result' if over_old else ''}: {fault}" for fault in found]
        return f"{number.name} {'between operations' if between else 'at random'}"

    def _wrong_files(self, case: Case, whole: Whole, folder: Path, before: dict[str, Parts]) -> list[str]:
        """Return the files under final names that are neither the old ones nor the new ones."""
        found = []
        for name, parts in tree(folder, hidden=False).items():
            passing = any(Path(name).match(pattern) for pattern in case.passing) or (case.trains and name == case.state)
            if parts and before.get(name) != parts and not passing and (unlike := whole.unlike(case, name, parts)):
                found.append(f"{name} is neither old nor new ({unlike})")
        # What a kill leaves of two files that go together is mended by the next run; the first is never missing.
        if any(case.is_first(name) for name in before) and not (folder / case.first).exists():
            found.append(f"the old {case.first} is gone")
        return found

    def _wrong_again(self, case: Case, whole: Whole, folder: Path, before: dict[str, Parts]) -> list[str]:
        """Run a killed command again, by --force only where a result stands; return what is wrong then."""
        if case.trains and (folder / case.state).exists():
            return self._wrong_resumed(case, whole, folder)
        stood = case.again and (folder / case.first).exists()
        ended = self.program.run(folder, case.command)
        if ended.code != (2 if stood else 0):
            return [f"the repeated run exits {ended.code}: {ended.said[-300:]}"]
        found = []
        if stood:
            now = {name: parts for name, parts in tree(folder, hidden=False).items() if case.result(name)}
            if now != {name: parts for name, parts in before.items() if case.result(name)}:
                found += [f"beside a whole new result: {fault}" for fault in whole.result_unlike(case, now)]
            ended = self.program.run(folder, (*case.command, "--force"))
            if ended.code:
                return [*found, f"the run with --force exits {ended.code}: {ended.said[-300:]}"]
        again = whole.new_unlike(tree(folder, hidden=True))
        return found + [f"after a repeated run: {fault}" for fault in again]

    def _wrong_resumed(self, case: Case, whole: Whole, folder: Path) -> list[str]:
        """Continue a killed training; return what is wrong then. Without --resume it must not begin again."""
        ended = self.program.run(folder, case.command)
        if ended.code != 2:
            return [f"the repeated run exits {ended.code} beside {case.state}: {ended.said[-300:]}"]
        ended = self.program.run(folder, (*case.command, "--resume"))
        if ended.code:
            return [f"the run with --resume exits {ended.code}: {ended.said[-300:]}"]
        return [f"after a resumed run: {fault}" for fault in whole.new_unlike(tree(folder, hidden=True))]


def _wrong_end(ended: Ended, number: signal.Signals) -> list[str]:
    # Before the program listens, and when it is done, a signal ends it as it ends any other process.
    expected = {0, -number} | (set() if number is signal.SIGKILL else {INTERRUPTED})
    found = [] if ended.code in expected else [f"exit {ended.code}: {ended.said[-300:]}"]
    found += ["a traceback: " + ended.said[-300:]] if "Traceback" in ended.said else []
    return found + ([f"processes live on: {ended.orphans}"] if ended.orphans else [])


def kills(
    count: int,
    seed: int,
    cases: Sequence[Case] = CASES,
    heard: Callable[[Counter[str], list[str]], None] = lambda _done, _faults: None,
    share_between: float = 0.6,
) -> tuple[Counter[str], list[str]]:
    """Do so many kills; `heard` gets the counts after each. Return the counts of each kind, and what was wrong.

    share_between: of the kills fall between file operations, the others at random moments.
    """
    chance = random.Random(seed)
    done = Counter[str]()
    with tempfile.TemporaryDirectory() as home:
        program = Program(Path(home))
        killer = Killer(program, chance)
        with serving(Behaviour(program.archive)) as program.url:
            program.prepare(cases)
            known = {case.name: whole for case in cases if (whole := killer.whole(case))}
            whole_cases = [case for case in cases if case.name in known]
            # Each has its turn in order, so that a short run sees all of them.
            turns = [case for case in whole_cases for _ in range(case.share)]
            chance.shuffle(turns)
            for number in range(count if turns else 0):
                case = turns[number % len(turns)]
                how = killer.kill(case, known[case.name], share_between)
                done[case.name] += 1
                done[how] += 1
                heard(done, killer.faults)
            for case in whole_cases:
                whole = known[case.name]
                done[f"{case.name}: file operations of a whole run"] = whole.operations
    return done, killer.faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES], help="can be repeated")
    asked = parser.parse_args()
    names = asked.only or [case.name for case in CASES]
    known = list[str]()

    def heard(done: Counter[str], faults: list[str]) -> None:
        total = sum(count for name, count in done.items() if name in names)
        print(f"{total} of {asked.kills}, {len(faults)} faults", *faults[len(known) :], sep="\n  ", flush=True)
        known[:] = faults

    done, faults = kills(asked.kills, asked.seed, [case for case in CASES if case.name in names], heard)
    for name, count in sorted(done.items()):
        print(f"{count:4}  {name}")
    print(f"{asked.kills} kills, seed {asked.seed}: {len(faults)} faults", *faults, sep="\n  ")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
