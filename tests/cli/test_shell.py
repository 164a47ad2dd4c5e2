import os
import signal

import pytest

from transfer_learning.cli import shell


@pytest.fixture
def call(monkeypatch):
    """call(main) -> the exit code of `shell.call(main)`, without arguments."""
    monkeypatch.setattr("sys.argv", ["train.py"])
    before = signal.getsignal(signal.SIGTERM)

    def run(main):
        with pytest.raises(SystemExit) as end:
            shell.call(main)
        return end.value.code

    yield run
    signal.signal(signal.SIGTERM, before)


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


def test_a_later_sigterm_counts_if_the_first_one_was_lost(call, monkeypatch):
    """Python drops exceptions in callbacks of weak references and in finalizers."""
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
