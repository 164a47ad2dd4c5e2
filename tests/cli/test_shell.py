import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from transfer_learning.cli import shell


@pytest.fixture
def call(monkeypatch):
    """call(main) -> the exit code of `shell.call(main)`, without arguments."""
    monkeypatch.setattr("sys.argv", ["train.py"])
    before, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook

    def run(main):
        with pytest.raises(SystemExit) as end:
            shell.call(main)
        return end.value.code

    yield run
    signal.signal(signal.SIGTERM, before)
    sys.unraisablehook = hook


def test_sigterms_in_quick_succession_are_one(call):
    cleared = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            cleared.append(True)

    assert call(main) == 143 and cleared


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupt_that_python_drops_is_repeated(call, capfd, number, code):
    """It drops exceptions in callbacks of weak references and in finalizers."""
    began = []

    class Dying:
        def __del__(self):
            began.append(True)
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def main():
        Dying()
        time.sleep(20)

    start = time.monotonic()
    assert call(main) == code and began and time.monotonic() - start < 10
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_a_later_sigterm_counts_if_the_first_one_was_lost(call, monkeypatch):
    monkeypatch.setattr(shell, "REPEATED", 0.0)
    passed = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            passed.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
        passed.append(False)

    assert call(main) == 143 and passed == [True]


def test_a_key_that_is_given_twice_is_named_by_the_first_process(call, capfd, monkeypatch):
    for rank, expected in (("1", ""), ("0", "seed=1 seed=2: seed is given 2 times; the last one counts.\n")):
        monkeypatch.setattr("sys.argv", ["train.py", "seed=1", "seed=2"])
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert call(sys.exit) is None
        assert capfd.readouterr().err == expected


ONE_BAD_PROCESS = """
import os, train
import train
from transfer_learning.cli import shell
from transfer_learning.engine.objective import CrossEntropy
losses, calls = CrossEntropy.training_losses, []

def training_losses(self, *arguments, **settings):
    calls.append(0)
    result = losses(self, *arguments, **settings)
    if os.environ.get("LOCAL_RANK", "0") == os.environ["BAD"] and len(calls) == 2:
        if os.environ["KIND"] == "error":
            raise ValueError("this process alone")
        result = result.detach() * float("nan") + 0 * result
    return result

CrossEntropy.training_losses = training_losses
shell.call(train.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["0", "1"])
@pytest.mark.parametrize(
    "kind, reason", [("loss", "epoch 1, step 2: the loss is not finite"), ("error", "this process")]
)
def test_if_one_of_two_processes_fails_both_end_and_the_reason_is_kept(tmp_path, bad, kind, reason):
    (tmp_path / "program.py").write_text(ONE_BAD_PROCESS)
    arguments = ["data=cartoons", "data.image_size=32", "data.train_per_class=20", "data.val_per_class=8"]
    arguments += ["data.test_per_class=8", "data.batch_size=10", "model.channels=[4,8]", "trainer=ddp_cpu"]
    arguments += [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache", "trainer.max_epochs=2"]
    environment = os.environ | {"BAD": bad, "KIND": kind, "HYDRA_MAIN_MODULE": "__main__"}
    command = [sys.executable, str(tmp_path / "program.py"), *arguments]
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(train.__file__).parent), *sys.path])
    # The pipe closes when the last process has ended.
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert result.returncode == 1, result.stderr
    assert (tmp_path / "run" / "FAILED").read_text().startswith(reason)
    assert not (tmp_path / "run" / "metrics.json").exists()
