"""Runs on a board: keeps the versions of a deployed model, and runs one of them as a service.

Sent as the text of `python3 -c`. `DATA/NAME/VERSION` holds a model and all that reads with it; the link `current` names
the version that runs, `previous` the one before. A link is replaced as a whole, so that a kill leaves one of the two.
"""

import fcntl
import getpass
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

DATA = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "glyphpress"
UNITS = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"
START_S = 60
"""So long a service may take until it answers."""
UNIT = """[Unit]
Description=glyphpress {name}: reads pictures of characters

[Service]
ExecStart="{run}" --serve {port}
Restart=on-failure
RestartSec=2

[Install]
WantedBy=default.target
"""


def linked(folder: Path, link: str) -> str:
    """Return the version that a link names, empty where there is none."""
    return (folder / link).readlink().name if (folder / link).is_symlink() else ""


def link(folder: Path, name: str, version: str) -> None:
    """Let a link name a version, at once; without a version there is no link."""
    new = folder / ("." + name)
    if new.is_symlink():
        new.unlink()
    if version:
        new.symlink_to(version)
        new.replace(folder / name)
    elif (folder / name).is_symlink():
        (folder / name).unlink()


def state(name: str) -> dict[str, Any]:
    """Return the folder of a name, and its versions."""
    folder = DATA / name
    current = linked(folder, "current")
    told = {"folder": str(folder), "current": current, "previous": linked(folder, "previous")}
    return dict(told, file=model(folder / current) if current else "")


def model(folder: Path) -> str:
    """Return the name of the model in a version's folder: the file that has a sidecar; empty where there is none."""
    sidecars = sorted(folder.glob("*.json"))
    return next((path.stem for path in sidecars if path.with_suffix("").is_file()), "")


def settle(name: str, version: str, pushed: str, *libraries: str) -> dict[str, Any]:
    """Move a folder that was pushed to its version, with the packages that it needs; whole or not at all."""
    folder, part = DATA / name / version, DATA / name / (".part-" + version)
    shutil.rmtree(str(part), ignore_errors=True)
    if not folder.is_dir():
        try:
            shutil.copytree(pushed, str(part))
            for library in libraries:
                # Links take no space, and what `targets setup` replaces or a cleaner removes stays here.
                shutil.copytree(library, str(part / "lib"), copy_function=linked_file, dirs_exist_ok=True)
            (part / "run").chmod(0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(str(part), ignore_errors=True)
    shutil.rmtree(pushed, ignore_errors=True)
    return state(name)


def linked_file(source: str, target: str) -> str:
    """Link a file, or copy it to another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def switch(name: str, version: str, port: str, sha256: str) -> dict[str, Any]:
    """Let a version run; where its service does not answer, the one before runs again. port: 0 for no service."""
    before = state(name)
    if version == "previous":
        version = before["previous"] or refuse("there is no version before this one; nothing was changed")
    folder = DATA / name
    if not (folder / version).is_dir():
        refuse(str(folder / version) + " is not there; deploy it again")
    if version != before["current"]:
        link(folder, "previous", before["current"])
        link(folder, "current", version)
    said: dict[str, Any] = {}
    if int(port):
        said = start(name, int(port), sha256)
        if said.get("failed"):
            link(folder, "current", before["current"])
            link(folder, "previous", before["previous"])
            if before["current"]:
                systemctl("restart", unit(name))
            else:
                systemctl("disable", "--now", unit(name))
            back = "the version before runs again" if before["current"] else "it was taken back"
            refuse(said["failed"] + "; " + back)
    after = state(name)
    for other in folder.iterdir():
        if other.is_dir() and not other.is_symlink() and other.name not in (after["current"], after["previous"]):
            shutil.rmtree(str(other), ignore_errors=True)
    after.update(said)
    return after


def refuse(message: str) -> NoReturn:
    """End with a message that says all that there is to do; `ssh_error` adds nothing to what begins so."""
    sys.exit("refused: " + message)


def unit(name: str) -> str:
    """Return the service's name."""
    return "glyphpress-" + name + ".service"


def start(name: str, port: int, sha256: str) -> dict[str, Any]:
    """Start the service anew and wait until it answers for the model of this digest, any where that is empty."""
    run = str(DATA / name / "current/run")
    UNITS.mkdir(parents=True, exist_ok=True)
    text = UNIT.format(name=name, run=run.replace("%", "%%"), port=port)
    part = UNITS / ("." + unit(name))
    part.write_text(text)
    part.replace(UNITS / unit(name))
    for words in (["daemon-reload"], ["enable", unit(name)], ["restart", unit(name)]):
        code, message = systemctl(*words)
        if code:
            by_hand = "no service was started (" + message + "); start it by `" + run + " --serve " + str(port) + "`"
            return {"service": "", "notes": [by_hand, *still_answering(port)]}
    notes: list[str] = []
    if subprocess.run(["loginctl", "enable-linger"], capture_output=True, check=False).returncode:
        notes = ["after a restart it runs once you log in; `sudo loginctl enable-linger " + getpass.getuser() + "`"]
    answer = ""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        answer = answering(port).get("sha256", "") or answer
        if answer and (answer == sha256 or not sha256):
            return {"service": unit(name), "notes": notes}
        time.sleep(0.5)
    why = "another program answers there" if answer else "see `journalctl --user -u " + unit(name) + "` there"
    return {"failed": "its service does not answer on port " + str(port) + " (" + why + ")"}


def answering(port: int) -> dict[str, str]:
    """Return what a program that reads pictures says of itself on a port; empty where none answers."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:" + str(port), timeout=5) as stream:
            answer = json.loads(stream.read().decode())
        return {key: str(answer[key]) for key in ("model", "sha256")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def still_answering(port: int) -> list[str]:
    """Return a note where a program that was started by hand still reads with what it was started with."""
    model = answering(port).get("model")
    if not model:
        return []
    return ["what was started on port " + str(port) + " before still answers, with " + model + "; stop it first"]


def systemctl(*words: str) -> tuple[int, str]:
    """Run `systemctl --user`; return its exit code and the last line that it says."""
    environ = dict(os.environ)
    environ.setdefault("XDG_RUNTIME_DIR", "/run/user/" + str(os.getuid()))
    try:
        done = subprocess.run(["systemctl", "--user", *words], env=environ, capture_output=True, check=False)
    except OSError:
        return 1, "there is no systemd"
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
    return done.returncode, lines[-1]


def main() -> None:
    """Do what the first argument says, one process at a time, and print the result as JSON."""
    command, name = sys.argv[1:3]
    try:
        (DATA / name).mkdir(parents=True, exist_ok=True)
        with (DATA / name / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done: Any = {"state": state, "settle": settle, "switch": switch}[command]
            print(json.dumps(done(*sys.argv[2:])))
    except shutil.Error as error:  # of a whole folder: one entry for each file that could not be copied
        first = error.args[0][0] if isinstance(error.args[0], list) else error.args
        sys.exit(str(DATA) + ": " + str(first[-1]))
    except OSError as error:
        sys.exit(str(DATA) + ": " + str(error.strerror or error))


if __name__ == "__main__":
    main()
