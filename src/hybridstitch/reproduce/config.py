"""What a result folder was made with: config.json says it, and a folder of something else is not gone on with."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..disk import files as disk
from ..disk.lock import LOCK
from ..measure.machine import device_name
from ..report.identity import recorded
from ..report.metadata import versions
from .settings import ReproductionError, Settings

DECIDES = ("pair", "small", "models", "size", "steps", "guidance", "seed", "dtype", "calibrate")


def describe(settings: Settings, command: Sequence[str]) -> dict[str, Any]:
    """Settings, versions, hardware, commit and the exact command, as a JSON object.

    Args:
        settings: what is reproduced.
        command: the words of the command line.
    """
    return {
        "command": " ".join(command),
        "commit": commit(),
        "code": code(),
        "settings": {name: _plain(getattr(settings, name)) for name in DECIDES},
        "prompts": {**settings.origin, "n": settings.n, "first": settings.prompts[0]},
        "latency_n": settings.latency_n,
        "hardware": hardware(settings.device),
        "versions": versions(),
    }


def refuse_strange(out: Path) -> None:
    """Refuse a folder that holds something else; leaves no lock there.

    Raises:
        ReproductionError: it has files, none of them config.json.
    """
    if not out.is_dir() or (out / "config.json").is_file():
        return
    if any(path.name != LOCK for path in out.iterdir()):
        raise ReproductionError(f"{out} has files but no config.json; choose an empty folder for --out")


def begin(settings: Settings, command: Sequence[str], *, mixed: bool) -> dict[str, Any]:
    """See that what is in the folder belongs to this reproduction; write config.json.

    Args:
        settings: what is reproduced; its folder is there, and held.
        command: the words of the command line.
        mixed: go on in a folder that other code began.

    Raises:
        ReproductionError: the folder is of something else; says what.
        OSError: it cannot be written.
    """
    now = describe(settings, command)
    path = settings.out / "config.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            apart = _apart(before, now)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReproductionError(f"{path} is damaged ({error}); choose another --out, or delete it") from error
        if apart:
            raise ReproductionError(
                f"{settings.out} was begun with {'; '.join(apart[:3])}: choose another --out, or ask for the same"
            )
        if before["code"] != now["code"] and not mixed:
            raise ReproductionError(
                f"{settings.out} was begun by commit {before['commit']}, this is {now['commit']}: choose another "
                "--out, or go on in it with --mixed"
            )
        if before["code"] != now["code"]:
            now["commits_before"] = [*before.get("commits_before", []), before["commit"]]
        now["commands_before"] = [*before.get("commands_before", []), before["command"]]
    disk.sweep(settings.out)
    disk.keep(path, (json.dumps(now, indent=1, ensure_ascii=False) + "\n").encode())
    return now


def models_in(out: Path) -> dict[str, str]:
    """What the models' names stood for when a folder was begun; see `identity.recorded`."""
    return recorded(out / "config.json", "settings")


def commit() -> str:
    """The commit of this code, "+changes" where files differ from it; the release outside of a checkout."""
    if not _ours():
        return f"release {versions()['hybridstitch']}"
    changed = _git("status", "--porcelain", "--", str(_package()))
    return _git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")


def code() -> str:
    """Tells this code from other code: the tree of the package, so that a commit elsewhere changes nothing."""
    if not _ours():
        return commit()
    changed = _git("status", "--porcelain", "--", str(_package()))
    return _git("rev-parse", "HEAD:./") + ("+changes" if changed else "")


def hardware(device: str) -> dict[str, Any]:
    """What draws."""
    return {"device": device, "name": device_name(device), "cores": os.cpu_count()}


def _apart(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what two configs differ that decides pictures or times."""
    pairs = [(name, before["settings"].get(name), now["settings"][name]) for name in DECIDES]
    pairs += [("prompts", before["prompts"][k], now["prompts"][k]) for k in ("source", "first")]
    pairs += [("hardware", before["hardware"][k], now["hardware"][k]) for k in ("device", "name")]
    pairs += [(name, before["versions"].get(name), v) for name, v in now["versions"].items() if name != "hybridstitch"]
    return [f"{name} {then}, now {today}" for name, then, today in pairs if then != today]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def _package() -> Path:
    return Path(__file__).parent.parent


def _ours() -> bool:
    return _git("ls-files", "__init__.py") == "__init__.py"


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=_package(), capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
