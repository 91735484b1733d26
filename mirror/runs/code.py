"""The code behind a run: the commit that the command was given in, and what a user's own parts consisted of."""

import hashlib
import importlib.util
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 10.0
"""Seconds that git may take."""
PACKAGE = __name__.partition(".")[0]


def code_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``metrics.json`` keeps under ``code``.

    Args:
        config: the resolved settings, as plain values.

    Returns:
        ``commit`` of the working directory and whether tracked files were ``changed`` since, both None outside of git;
        and ``parts``, as ``own_parts`` returns them.
    """
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit or None,
        "changed": None if changed is None else bool(changed),
        "parts": own_parts(config),
    }


def own_parts(config: Mapping[str, Any]) -> dict[str, str]:
    """By module, a digest of the code of the parts outside of mirror that the settings name.

    It covers the module's file, or every Python file of a package, but nothing else that these import. What was
    installed has a version and is left out.
    """
    modules = {target.partition(".")[0] for target in _targets(config)} - {PACKAGE}
    return {name: found for name in sorted(modules) if (found := _digest(_files(name)))}


def changed_parts(run: Mapping[str, Any]) -> list[str]:
    """The modules whose code is no longer what a run recorded; none where it recorded nothing."""
    recorded = (run.get("code") or {}).get("parts")
    if not recorded:
        return []
    now = own_parts(run["config"])
    return [name for name, digest in recorded.items() if now.get(name) != digest]


def _targets(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        if isinstance(target := values.get("_target_"), str):
            yield target
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _targets(value)


def _files(module: str) -> list[Path]:
    """The files of a module, which is looked for but not imported."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    paths = folders or [Path(spec.origin or "")]
    if any(paths[0].is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")):
        return []
    return sorted(file for folder in folders for file in folder.rglob("*.py")) if folders else paths


def _digest(files: Sequence[Path]) -> str | None:
    digest = hashlib.sha256()
    try:
        for path in files:
            digest.update(path.relative_to(files[0].parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    except (OSError, ValueError):
        return None
    return digest.hexdigest()[:16] if files else None


def _git(*arguments: str) -> str | None:
    """What git answers in the working directory; None without git or a repository."""
    try:
        command = ["git", "--no-optional-locks", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()
