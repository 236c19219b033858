"""Released wheels, each in a folder of its own: fetched, checked, and run in another process.

A release never touches the environment. It is unpacked into a cache folder that holds that release and nothing else,
and whoever wants to run it starts a Python process with that folder first on its path. So two releases of one package
can be compared in one session, and no test depends on what happens to be installed.

Fetching is left to pip or to uv, whichever made the environment: they know the index, the find-links folder, the
certificates and the proxy of this machine. What they deliver is checked twice: the wheel against the SHA-256 that
``pinned_wheels.json`` names (by the tool, which sees the wheel), and each file against the wheel's own RECORD
(here, after unpacking and again at every use).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache as once
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from filelock import FileLock
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from platformdirs import user_cache_path

#: A tool that waits for a dead network longer than this is stopped, and its wait is the reason that is reported.
_SECONDS = 180


class ReleaseUnavailable(Exception):
    """No tool could deliver a release: no network, no such version, no pip and no uv."""


class ReleaseRefused(Exception):
    """What was delivered is not what was released: a hash differs."""


@dataclass(frozen=True)
class Release:
    """One unpacked release.

    distribution: name on the index, in its canonical form. version: as released.
    path: folder with that release's packages and its metadata, and nothing else.
    unconfirmed: why the index could not say that this is the newest release; empty where it did, and where a version
    was asked for.
    """

    distribution: str
    version: str
    path: Path
    unconfirmed: str = ""

    def environment(self) -> dict[str, str]:
        """Return the environment for a child process in which this release comes before whatever is installed."""
        behind = os.environ.get("PYTHONPATH")
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.path), behind] if behind else [str(self.path)])}

    def load(self, package: str) -> ModuleType:
        """Import `package` in this process and prove that it is this release. For use in a child process.

        Raises ImportError, naming both folders or versions, where another copy came first.
        """
        module = importlib.import_module(package)
        found = Path(module.__file__ or "").resolve()
        if not found.is_relative_to(self.path.resolve()):
            raise ImportError(
                f"{package} was imported from {found.parent}, expected {self.path}: "
                "another copy comes first on sys.path; run from a folder that holds no package of that name"
            )
        version = importlib.metadata.version(self.distribution)
        if version != self.version:
            raise ImportError(f"{self.path} holds {self.distribution} {version}, expected {self.version}")
        return module


def fetch(requirement: str, cache: Path | None = None) -> Release:
    """Return the release that `requirement` names, from the cache or else through pip or uv.

    requirement: ``"name==version"``, or ``"name"`` for the newest release that the index knows; where no index
    answers, the newest in the cache, and `Release.unconfirmed` says why.
    cache: folder for unpacked releases; by default ``$VQ_REFERENCE_CACHE``, else the user's cache folder.

    Safe to interrupt (a release appears by one rename, complete) and to run in several processes at once (a lock for
    each release). A cached release whose files have changed is fetched again.

    Raises ValueError for another form of `requirement`, ReleaseUnavailable where nothing could be fetched, and
    ReleaseRefused where a hash differs.

    >>> fetch("vector-quantize-pytorch>=1.20")
    Traceback (most recent call last):
        ...
    ValueError: requirement: 'vector-quantize-pytorch>=1.20' is neither 'name==version' nor 'name'
    """
    distribution, version = _parse(requirement)
    folder = (cache or cache_folder()) / "releases"
    folder.mkdir(parents=True, exist_ok=True)
    if version:
        return _fetch_version(distribution, version, folder)
    try:
        return _fetch_version(distribution, _newest(distribution, folder), folder)
    except ReleaseUnavailable as reason:
        unpacked = (path.name for path in folder.glob(f"{distribution}-[0-9]*") if path.is_dir())
        kept = [Version(name.removeprefix(f"{distribution}-")) for name in unpacked]
        if not kept:
            raise
        release = _fetch_version(distribution, str(max(kept)), folder)
        return Release(release.distribution, release.version, release.path, unconfirmed=str(reason))


def cache_folder() -> Path:
    """Return the folder that everything fetched lies in: ``$VQ_REFERENCE_CACHE``, else the user's cache folder."""
    named = os.environ.get("VQ_REFERENCE_CACHE")
    return Path(named) if named else user_cache_path("vq-reference", appauthor=False)


def pinned_sha256(distribution: str, version: str) -> str | None:
    """Return the SHA-256 of that release's wheel, or None where it is not one that the regressions rely on."""
    return _pins().get(distribution, {}).get(version)


@once
def _pins() -> dict[str, dict[str, str]]:
    pins: dict[str, dict[str, str]] = json.loads(files(__package__).joinpath("pinned_wheels.json").read_text("utf-8"))
    return pins


def _parse(requirement: str) -> tuple[str, str]:
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        parsed = None
    exact = parsed and re.fullmatch(r"==([^*,]+)", str(parsed.specifier))
    if parsed is None or parsed.url or parsed.extras or parsed.marker or (parsed.specifier and not exact):
        raise ValueError(f"requirement: {requirement!r} is neither 'name==version' nor 'name'")
    return canonicalize_name(parsed.name), str(Version(exact[1])) if exact else ""


def _fetch_version(distribution: str, version: str, folder: Path) -> Release:
    release = Release(distribution, version, folder / f"{distribution}-{version}")
    with FileLock(folder / f"{distribution}-{version}.lock"):
        if release.path.is_dir() and not _fault(release.path):
            return release
        sha256 = pinned_sha256(distribution, version)
        pin = f" --hash=sha256:{sha256}" if sha256 else ""
        # The name is fixed and the lock is held, so what an interrupted run left there is ours to remove.
        partial = folder / f".{distribution}-{version}.partial"
        try:
            _install(f"{distribution}=={version}{pin}", partial)
            fault = _fault(partial)
            if fault:
                raise ReleaseRefused(f"{distribution}=={version} was fetched but is not used: {fault}")
            shutil.rmtree(release.path, ignore_errors=True)
            partial.rename(release.path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return release


def _newest(distribution: str, folder: Path) -> str:
    """Return the newest version on the index. What comes with it is thrown away: one way leads into the cache."""
    partial = folder / f".{distribution}-newest.partial"
    with FileLock(folder / f"{distribution}-newest.lock"):
        try:
            _install(distribution, partial)
            (found,) = importlib.metadata.distributions(path=[str(partial)])
            return str(Version(found.version))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _install(line: str, target: Path) -> None:
    """Unpack what `line` of a requirements file names into `target`, by the first tool that can."""
    reasons = []
    for tool, command in _tools():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        listing = target.with_suffix(".txt")
        listing.write_text(line + "\n", encoding="utf-8")
        # A machine that forbids pip outside virtual environments, or sends it to the user's site, means installs.
        # This one goes to a folder of ours.
        environment = {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"}
        shared = ["--no-deps", "--only-binary", ":all:", "--target", str(target), "-r", str(listing)]
        try:
            done = subprocess.run(
                [*command, *shared], env=environment, capture_output=True, encoding="utf-8", timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            reasons.append(f"{tool}: no answer within {_SECONDS} s")
            continue
        finally:
            listing.unlink()
        if done.returncode == 0:
            return
        if re.search(r"do not match the hashes|hash mismatch", done.stderr, re.IGNORECASE):
            raise ReleaseRefused(f"{line.split()[0]}: the wheel that {tool} found does not have the pinned SHA-256")
        reasons.append(f"{tool}: {_reason(done.stderr)}")
    raise ReleaseUnavailable(
        f"{line.split()[0]} could not be fetched ({'; '.join(reasons) or 'this environment has neither pip nor uv'}). "
        "Connect to a network or point pip or uv at an index that has it, or use --offline"
    )


def _tools() -> Iterator[tuple[str, list[str]]]:
    """Yield the tools at hand, the one whose settings this environment was made with first."""
    tools: dict[str, list[str]] = {}
    if _has("pip"):
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-compile"]
        tools["pip"] = [sys.executable, "-m", "pip", "install", *quiet]
    program = shutil.which("uv")
    if program or _has("uv"):
        start = [program] if program else [sys.executable, "-m", "uv"]
        # Copied, not linked: a file that is changed here must not change in uv's own cache.
        tools["uv"] = [*start, "pip", "install", "--quiet", "--link-mode", "copy", "--python", sys.executable]
    settings = Path(sys.prefix) / "pyvenv.cfg"
    made_by_uv = settings.is_file() and re.search(r"^uv\s*=", settings.read_text("utf-8"), re.MULTILINE)
    yield from sorted(tools.items(), reverse=bool(made_by_uv))


def _has(tool: str) -> bool:
    """Say whether this environment has the tool, without importing it: setuptools warns where pip is looked up late."""
    return any(importlib.metadata.distributions(name=tool))


def _reason(messages: str) -> str:
    """Return the line that says why: what broke the connection where pip tells it, else the last line."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()] or ["it gave no reason"]
    broken = [line[line.index("connection broken") :] for line in lines if "connection broken" in line]
    # pip shows the object that failed, address and all, before it says what failed.
    return re.sub(r"<[^<>]* object at \w+>: ", "", (broken or lines)[-1]).rstrip(".")


def _fault(folder: Path) -> str:
    """Return what keeps `folder` from being exactly what its RECORD lists, or nothing where it is."""
    records = list(folder.glob("*.dist-info/RECORD"))
    if len(records) != 1:
        return f"expected one RECORD, found {len(records)}"
    with records[0].open(encoding="utf-8", newline="") as rows:
        listed = {row[0]: row[1] for row in csv.reader(rows)}
    for name, digest in listed.items():
        if name.endswith(".dist-info/RECORD"):
            continue
        algorithm, _, expected = digest.partition("=")
        try:
            found = hashlib.new(algorithm, (folder / name).read_bytes()).digest()
        except (OSError, ValueError) as error:
            return f"{name}: {error}"
        if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != expected:
            return f"{name} does not have the {algorithm} that RECORD lists"
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        # Not the release's, and harmless: compiled files of the child processes, and the lock that uv leaves.
        if path.is_file() and "__pycache__" not in path.parts and name != ".lock" and name not in listed:
            return f"{name} is not listed in RECORD"
    return ""
