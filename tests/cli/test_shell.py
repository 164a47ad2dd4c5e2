import os
import signal
import sys
import time

import pytest

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
