"""The fetcher, on wheels made here: no test of this file needs a network."""

import base64
import hashlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vq_reference.testing.experiments.issue_177.measured import PACKAGE, RELEASES
from vq_reference.testing.releases import fetch as releases
from vq_reference.testing.releases.fetch import Release, ReleaseRefused, ReleaseUnavailable, fetch

FETCH = "import sys; from vq_reference.testing.releases.fetch import fetch; print(fetch(sys.argv[1]).path)"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A find-links folder that is all that pip and uv may look at, and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    settings = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_NO_CACHE": "1",
        "UV_FIND_LINKS": str(folder),
        "VQ_REFERENCE_CACHE": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture(params=["pip", "uv"])
def only_tool(request, monkeypatch):
    """Leave one of the two tools."""
    _only(monkeypatch, request.param)
    return request.param


def _only(monkeypatch, *tools):
    if "uv" not in tools:
        monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(releases, "_has", lambda tool: tool in tools)


def _wheel(shelf: Path, version: str, source: str = "", recorded: str | None = None) -> Path:
    """Put toy-vq `version` on the shelf; `recorded` is the source that RECORD is made of, if it is to lie."""
    source = source or f"version = {version!r}\n"
    info = f"toy_vq-{version}.dist-info"
    files = {
        "toy_vq/__init__.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: toy-vq\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, text in {**files, "toy_vq/__init__.py": recorded or source}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(text.encode())}\n")
    path = shelf / f"toy_vq-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return path


def _kept() -> list[str]:
    """Return what the cache holds beside locks."""
    return sorted(p.name for p in (releases.cache_folder() / "releases").iterdir() if p.suffix != ".lock")


def test_a_release_gets_a_folder_of_its_own_and_the_environment_gets_nothing(shelf, only_tool):
    _wheel(shelf, "1.0")
    release = fetch("toy-vq==1.0")
    assert (release.distribution, release.version, release.unconfirmed) == ("toy-vq", "1.0", "")
    assert {p.name for p in release.path.iterdir()} - {".lock"} == {"toy_vq", "toy_vq-1.0.dist-info"}
    assert _kept() == ["toy-vq-1.0"]
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("toy-vq")


def test_a_release_in_the_cache_is_used_without_any_tool(shelf, monkeypatch):
    wheel = _wheel(shelf, "1.0")
    first = fetch("toy-vq==1.0")
    wheel.unlink()
    monkeypatch.setattr(releases, "_tools", lambda: pytest.fail("a tool was asked for what the cache holds"))
    assert fetch("toy-vq==1.0") == first


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_a_release_that_was_changed_in_the_cache_is_fetched_again(shelf, harm):
    _wheel(shelf, "1.0", source="right = True\n")
    module = fetch("toy-vq==1.0").path / "toy_vq" / "__init__.py"
    if harm == "change":
        module.write_text("right = None\n")
    elif harm == "remove":
        module.unlink()
    else:
        module.with_name("added.py").write_text("")
    fetch("toy-vq==1.0")
    assert module.read_text() == "right = True\n"
    assert [p.name for p in module.parent.iterdir()] == ["__init__.py"]


def test_a_fetch_that_is_killed_leaves_no_release_and_the_next_one_succeeds(shelf):
    _wheel(shelf, "1.0")
    killed = """
import os, signal
from vq_reference.testing.releases import fetch
def half(line, target):
    (target / "toy_vq").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
fetch._install = half
fetch.fetch("toy-vq==1.0")
"""
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    assert _kept() == [".toy-vq-1.0.partial"]
    assert fetch("toy-vq==1.0").path.name == "toy-vq-1.0"
    assert _kept() == ["toy-vq-1.0"]


def test_a_fetch_that_is_interrupted_leaves_nothing(shelf, monkeypatch):
    def half(line, target):
        (target / "toy_vq").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(releases, "_install", half)
    with pytest.raises(KeyboardInterrupt):
        fetch("toy-vq==1.0")
    assert _kept() == []


def test_processes_that_fetch_one_release_at_once_all_get_it_whole(shelf):
    _wheel(shelf, "1.0")
    running = [
        subprocess.Popen([sys.executable, "-c", FETCH, "toy-vq==1.0"], stdout=subprocess.PIPE, encoding="utf-8")
        for _ in range(4)
    ]
    answers = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * len(running)
    assert answers == {str(fetch("toy-vq==1.0").path)}
    assert _kept() == ["toy-vq-1.0"]


def test_without_a_version_the_newest_on_the_index_is_fetched_and_named(shelf):
    for version in ("1.2", "1.10", "1.9"):
        _wheel(shelf, version)
    assert fetch("toy-vq").version == "1.10"
    assert _kept() == ["toy-vq-1.10"]


def test_without_an_index_the_newest_in_the_cache_is_used_and_said_to_be_that(shelf):
    wheels = [_wheel(shelf, version) for version in ("1.2", "1.10", "1.9")]
    for version in ("1.9", "1.10", "1.2"):
        fetch(f"toy-vq=={version}")
    for wheel in wheels:
        wheel.unlink()
    release = fetch("toy-vq")
    assert release.version == "1.10"
    assert "toy-vq could not be fetched" in release.unconfirmed


def test_a_release_that_no_tool_delivers_is_named_with_the_reason_and_the_remedy(shelf, only_tool):
    with pytest.raises(ReleaseUnavailable) as caught:
        fetch("toy-vq==1.0")
    said = {"pip": "No matching distribution found for toy-vq==1.0", "uv": "the network (was|is) disabled"}[only_tool]
    remedy = "Connect to a network or point pip or uv at an index that has it, or use --offline"
    assert re.fullmatch(rf"toy-vq==1.0 could not be fetched \({only_tool}: .*{said}.*\). {remedy}", str(caught.value))
    assert _kept() == []


def test_an_environment_without_pip_and_uv_says_so(shelf, monkeypatch):
    _only(monkeypatch)
    with pytest.raises(ReleaseUnavailable, match="this environment has neither pip nor uv"):
        fetch("toy-vq==1.0")


@pytest.mark.parametrize(("made_by", "order"), [("uv = 0.9.0", ["uv", "pip"]), ("version = 3.11.7", ["pip", "uv"])])
def test_the_tool_that_made_the_environment_is_asked_first(tmp_path, monkeypatch, made_by, order):
    tmp_path.joinpath("pyvenv.cfg").write_text(f"home = here\n{made_by}\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert [tool for tool, _ in releases._tools()] == order


def test_a_broken_connection_is_the_reason_and_not_the_empty_index_that_follows_from_it():
    broken = "WARNING: Retrying after connection broken by 'NewError('<a.B object at 0x7f7d>: refused')': /simple\n"
    said = broken + "ERROR: No matching distribution found\n"
    assert releases._reason(said) == "connection broken by 'NewError('refused')': /simple"


def test_a_wheel_without_the_pinned_hash_is_refused(shelf, only_tool, monkeypatch):
    wheel = _wheel(shelf, "1.0")
    monkeypatch.setattr(releases, "pinned_sha256", lambda *_: hashlib.sha256(b"another wheel").hexdigest())
    with pytest.raises(ReleaseRefused, match=f"toy-vq==1.0: the wheel that {only_tool} found"):
        fetch("toy-vq==1.0")
    assert _kept() == []
    monkeypatch.setattr(releases, "pinned_sha256", lambda *_: hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert fetch("toy-vq==1.0").version == "1.0"


def test_a_wheel_whose_record_lies_is_refused(shelf, only_tool):
    _wheel(shelf, "1.0", source="right = None\n", recorded="right = True\n")
    with pytest.raises(ReleaseRefused, match=r"toy_vq/__init__.py does not have the sha256 that RECORD lists"):
        fetch("toy-vq==1.0")
    assert _kept() == []


@pytest.mark.parametrize("requirement", ["toy-vq>=1", "toy-vq==1.*", "toy-vq==1,==2", "toy-vq[x]==1", "toy vq", ""])
def test_only_a_name_or_one_exact_version_is_a_release(requirement):
    with pytest.raises(ValueError, match="requirement: "):
        fetch(requirement)


def test_each_child_process_imports_the_release_that_it_was_given(shelf, tmp_path, monkeypatch):
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "toy_vq.py").write_text("version = 'installed'\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]))
    code = "import toy_vq; print(toy_vq.version)"
    for version in ("1.0", "2.0"):
        _wheel(shelf, version)
        environment = fetch(f"toy-vq=={version}").environment()
        answer = subprocess.check_output([sys.executable, "-c", code], env=environment, encoding="utf-8")
        assert answer.strip() == version


@pytest.mark.parametrize(
    ("shadowed", "version", "fault"), [(True, "1.0", "was imported from"), (False, "9.9", "holds toy-vq 1.0")]
)
def test_loading_another_copy_or_version_than_the_release_raises(shelf, tmp_path, shadowed, version, fault):
    _wheel(shelf, "1.0")
    path = fetch("toy-vq==1.0").path
    start = tmp_path / "start"
    (start / "toy_vq").mkdir(parents=True)
    (start / "toy_vq" / "__init__.py").write_text("")
    code = f"""
import sys
from pathlib import Path
from vq_reference.testing.releases.fetch import Release
sys.path.insert(0, {str(start if shadowed else path)!r})
Release("toy-vq", {version!r}, Path({str(path)!r})).load("toy_vq")
"""
    environment = Release("toy-vq", version, path).environment()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert "ImportError" in done.stderr
    assert fault in done.stderr


def test_every_release_that_the_reproduction_names_is_pinned():
    assert [version for version in RELEASES if not releases.pinned_sha256(PACKAGE, version)] == []
