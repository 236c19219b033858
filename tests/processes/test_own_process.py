"""Calls in processes of their own: what comes back, on which release, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vq_reference.testing.processes.own_process import ProcessDied, Task, TookTooLong, in_own_process, in_own_processes
from vq_reference.testing.releases.fetch import Release


class NotMadeAgain(Exception):
    """An exception that cannot be made of its message alone."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raises(kind):
    raise kind(*"ab")


def of_release():
    import toy_release

    return toy_release.VERSION


def printed(text):
    os.write(1, text)
    print(text)
    return os.environ["OMP_NUM_THREADS"]


def waits_with_a_child(file):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    file.with_suffix(".part").write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    file.with_suffix(".part").rename(file)
    time.sleep(600)


def _ends(pid):
    """Whether a process has ended, or does so soon."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # nobody is there to ask how it ended
            return True
        time.sleep(0.05)
    return False


def _written(file):
    until = time.monotonic() + 60
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return file.read_text("utf-8").split()


def test_each_call_ends_by_itself_with_what_it_gave_raised_or_died_of():
    calls = [Task(abs, (-3,)), Task(int, ("x",)), Task(os._exit, (3,)), Task(os.abort, ()), Task(sys.exit, (4,))]
    calls += [Task(raises, (NotMadeAgain,)), Task(printed, (b"said",))]
    ended = dict(in_own_processes(calls, at_once=2))
    assert ended[0] == 3
    assert isinstance(ended[1], ValueError)
    assert "Traceback" in str(ended[1].__cause__)
    assert [str(ended[i]) for i in (2, 3)] == [
        "_exit ended its interpreter (exit code 3)",
        "abort ended its interpreter (exit code -6)",
    ]
    assert isinstance(ended[4], SystemExit)
    assert (type(ended[5]), str(ended[5])) == (RuntimeError, "NotMadeAgain: a and b")
    assert ended[6] == "1"


def test_what_is_raised_there_is_raised_here():
    with pytest.raises(ValueError, match="invalid literal"):
        in_own_process(int, "x")


def test_a_release_comes_first_on_the_path_of_its_call_alone(tmp_path, monkeypatch):
    for version in ("installed", "1.0", "2.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "toy_release.py").write_text(f"VERSION = {version!r}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    releases = [Release("toy-release", version, tmp_path / version) for version in ("1.0", "2.0")]
    calls = [Task(of_release, (), release) for release in (*releases, None)]
    assert dict(in_own_processes(calls)) == {0: "1.0", 1: "2.0", 2: "installed"}


def test_after_the_limit_and_once_nobody_asks_they_end_with_what_they_started(tmp_path):
    with pytest.raises(TookTooLong):
        list(in_own_processes([Task(waits_with_a_child, (tmp_path / "late",))], limit=20.0))
    assert all(_ends(pid) for pid in _written(tmp_path / "late"))
    ended = in_own_processes([Task(abs, (-3,)), Task(waits_with_a_child, (tmp_path / "left",))])
    assert next(ended) == (0, 3)
    pids = _written(tmp_path / "left")
    ended.close()
    assert all(_ends(pid) for pid in pids)


def test_of_processes_that_do_not_end_in_time_it_is_said_where_they_stand():
    with pytest.raises(TookTooLong, match="in _call"):
        list(in_own_processes([Task(time.sleep, (600,))], limit=20.0))


def test_they_end_with_their_caller_however_it_ends(tmp_path):
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from test_own_process import waits_with_a_child
from vq_reference.testing.processes.own_process import in_own_process
in_own_process(waits_with_a_child, Path({str(tmp_path / "pids")!r}))
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    pids = _written(tmp_path / "pids")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert all(_ends(pid) for pid in pids)


def test_an_interpreter_that_cannot_start_is_told_with_its_last_words(monkeypatch):
    monkeypatch.setattr("vq_reference.testing.processes.own_process.SERVER", "raise SystemExit('no torch here')")
    with pytest.raises(ProcessDied, match="no torch here"):
        in_own_process(abs, -3)
