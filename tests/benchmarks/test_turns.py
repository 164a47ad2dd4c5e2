"""benchmarks/turns.py: processes that take turns."""

import threading
import time
from pathlib import Path

import pytest
from turns import Variant, measured, turn

from tests.conftest import needs_posix_signals

pytestmark = needs_posix_signals


def sleeper(folder: str, seconds: float) -> None:
    while True:
        turn()
        time.sleep(seconds)


def counter(folder: str) -> None:
    """Counts in the background, too."""
    count, file = [0], Path(folder, "counts.txt")

    def work() -> None:
        while True:
            count[0] += 1
            time.sleep(0.01)

    threading.Thread(target=work, daemon=True).start()
    while True:
        file.open("a").write(f"{count[0]}\n")
        turn()
        file.open("a").write(f"{count[0]}\n")
        time.sleep(0.3)


def broken(folder: str) -> None:
    raise ValueError("no such variant")


def test_seconds_of_each_turn_but_the_first(tmp_path):
    found = measured(
        {"short": Variant(sleeper, dict(seconds=0.1)), "long": Variant(sleeper, dict(seconds=0.5))}, 2, str(tmp_path)
    )
    assert list(found) == ["short", "long"] and [len(values) for values in found.values()] == [2, 2]
    assert min(found["short"]) > 0.09 and min(found["long"]) > 0.49
    assert max(found["short"]) < min(found["long"])


def test_a_waiting_process_does_nothing_in_the_background(tmp_path):
    measured({"counter": Variant(counter, {}), "other": Variant(sleeper, dict(seconds=0.6))}, 2, str(tmp_path))
    counts = [int(line) for line in (tmp_path / "counts.txt").read_text().split()]
    ends, starts = counts[0::2], counts[1::2]  # of turns; a turn ends where `turn` is called
    while_it_waits = [start - end for end, start in zip(ends[1:], starts[1:])]
    in_its_turns = [end - start for start, end in zip(starts, ends[1:])]
    assert while_it_waits and max(while_it_waits) < 10 < min(in_its_turns)  # 60 if it were not stopped


def test_a_variant_that_fails_ends_the_benchmark_with_its_log(tmp_path):
    with pytest.raises(SystemExit, match="(?s)broken failed:.*no such variant"):
        measured({"good": Variant(sleeper, dict(seconds=0)), "broken": Variant(broken, {})}, 1, str(tmp_path))
