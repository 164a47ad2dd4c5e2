"""benchmarks/gpu.py: its steps on the CPU, what a second call repeats, and steps that fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu
import pytest
from gpu_steps import MACHINE, PROJECT, STEPS, Settings, Step, end, run_process

from transfer_learning.utilities.files import write_checked_json

ABOUT = {"commit": "0123", "code": "45", "device": "cpu (a chip)", "torch": "2.14", "lightning": "2.6"}


@pytest.fixture
def called(monkeypatch, tmp_path):
    """called(*arguments) -> (exit code, the steps that ran); `called.fails` are those that fail, by exit code."""

    def process(name, settings, log, limit, threads=None):
        ran.append(name)
        code = call.fails.get(name, 0)
        log.write_text(f"{name} begins\n\n{name} ends\n", encoding="utf-8")
        if code == 0:
            values = call.about if name == MACHINE else {"value": 0.25, "more": {"all": [1]}}
            write_checked_json(Path(settings.folder, "result.json"), values)
        return code

    def call(*arguments):
        ran.clear()
        code = gpu.main(["--out", str(tmp_path / "out"), "--device", "cpu", *arguments])
        return code, [name for name in ran if name != MACHINE]

    ran: list[str] = []
    call.fails, call.about, call.out = {}, ABOUT, tmp_path / "out"
    steps = {
        "first": Step("compares", 10, "module.function"),
        "second": Step("measures", 20, "module.function", measures=True),
        "third": Step("of a GPU", 10, "module.function", needs_cuda=True),
    }
    monkeypatch.setattr(gpu, "STEPS", steps)
    monkeypatch.setattr(gpu, "run_process", process)
    return call


def rows(out: Path) -> dict:
    return json.loads((out / "table.json").read_text())["steps"]


def test_finished_steps_are_rows_and_do_not_run_again(called):
    assert called() == (0, ["first", "second"])
    table = (called.out / "table.md").read_text()
    assert "- device: cpu (a chip)" in table and "| compares" in table and "value 0.25" in table and "all" not in table
    assert rows(called.out)["first"]["values"] == {"value": 0.25, "more": {"all": [1]}}
    assert [row["state"] for row in rows(called.out).values()] == ["finished", "finished", "needs CUDA"]
    assert called() == (0, [])
    assert (called.out / "table.md").read_text() == table


@pytest.mark.parametrize("code, state", [(1, "failed"), (-9, "failed"), (None, "timed out")])
def test_a_step_that_fails_is_a_row_with_its_last_lines_and_runs_again(called, code, state):
    called.fails = {"first": code}
    assert called() == (1, ["first", "second"])
    assert rows(called.out)["first"]["state"] == state
    assert rows(called.out)["first"]["last lines"] == ["first begins", "first ends"]
    assert f"## first: {state}" in (called.out / "table.md").read_text()
    called.fails = {}
    assert called() == (0, ["first"])
    assert rows(called.out)["first"]["state"] == "finished" and "##" not in (called.out / "table.md").read_text()


def test_the_work_of_a_step_that_goes_on_is_kept_until_it_has_finished(called, monkeypatch):
    monkeypatch.setitem(gpu.STEPS, "second", gpu.STEPS["second"]._replace(goes_on=True))
    called.fails = {"first": 1, "second": 1}
    called()
    for name in ("first", "second"):
        (called.out / "work" / name / "checkpoint").touch()
    called()
    assert [path.parent.name for path in called.out.glob("work/*/checkpoint")] == ["second"]
    called.fails = {}
    called()
    assert not list(called.out.glob("work/*"))


@pytest.mark.parametrize(
    "about, arguments, named",
    [
        ({"commit": "89"}, [], "commit was 0123, is 89"),
        ({"torch": "2.6"}, [], "torch was 2.14, is 2.6"),
        ({"device": "cuda (another)"}, [], "device was cpu (a chip), is cuda (another)"),
        ({}, ["data.root=photographs"], "arguments was"),
        ({}, ["--short"], "arguments was"),
    ],
)
def test_results_of_something_else_are_refused(called, capsys, about, arguments, named):
    called()
    before = (called.out / "table.md").read_text()
    called.about = ABOUT | about
    with pytest.raises(SystemExit) as stopped:
        called(*arguments)
    assert stopped.value.code == 2 and named in capsys.readouterr().err
    assert (called.out / "table.md").read_text() == before


def test_a_device_that_cannot_be_used_is_refused(called, capsys):
    called.fails = {MACHINE: 1}
    with pytest.raises(SystemExit) as stopped:
        called()
    assert stopped.value.code == 2 and capsys.readouterr().err == "gpu.py: machine ends\n"


def test_a_step_begins_only_if_its_limit_fits(called, capsys):
    assert called("--minutes", "0.2") == (0, ["first"])
    assert rows(called.out)["second"]["state"] == "not run" and "time: 1" in capsys.readouterr().out
    assert called("--minutes", "0.4") == (0, ["second"])


def test_chosen_steps(called):
    assert called("--steps", "second", "data.root=photographs") == (0, ["second"])
    assert rows(called.out)["first"]["state"] == "not run"


@pytest.mark.parametrize("arguments", [["--steps", "none"], ["--shrot"], ["photographs"]])
def test_wrong_arguments(called, arguments):
    with pytest.raises(SystemExit) as stopped:
        called(*arguments)
    assert stopped.value.code == 2


def test_a_process_ends_at_its_limit_and_tells_why_it_fails(tmp_path):
    settings, log = Settings("cpu", True, str(tmp_path), str(tmp_path)), tmp_path / "log"
    assert run_process("no such step", settings, log, 60) == 1
    assert gpu.last_lines(log)[-1] == "KeyError: 'no such step'"
    start = time.perf_counter()
    assert run_process(MACHINE, settings, log, 0.1) is None
    assert time.perf_counter() - start < 10 and not (tmp_path / "result.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_what_a_step_has_started_ends_with_it():
    code = "import subprocess; subprocess.Popen(['sleep', '60']); print('started', flush=True); input()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **pipes) as process:
        assert process.stdout.readline() == b"started\n"
        start = time.perf_counter()
        end(process)
        assert process.stdout.read() == b"" and time.perf_counter() - start < 30  # nobody who could write is left


@pytest.mark.slow
def test_all_steps_on_the_cpu_and_nothing_anew_in_a_second_call(tmp_path):
    script = str(PROJECT / "benchmarks" / "gpu.py")
    command = [sys.executable, script, "--device=cpu", "--short", f"--out={tmp_path}"]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    states = {name: row["state"] for name, row in rows(tmp_path).items()}
    assert states == {name: "needs CUDA" if step.needs_cuda else "finished" for name, step in STEPS.items()}
    found = {name: row.get("values", {}) for name, row in rows(tmp_path).items()}
    assert found["system 3"]["epochs"] == 4 and found["epoch basic"].keys() >= {"project", "bare"}
    assert found["profile head"]["kernels"] > 0 and found["resumed"]["largest difference"] == 0
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").iterdir()}
    again = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert again.returncode == 0 and "steps to run: 0" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").iterdir()} == written
