import errno
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from transfer_learning.data.stored import stored
from transfer_learning.errors import UserError

KEY = {"what": "squares", "of": "numbers"}


class Squares:
    """Encodes and counts how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, numbers):
        self.calls += 1
        return np.array([[n, n * n] for n in numbers]), {
            position: "odd" for position, n in enumerate(numbers) if n % 2 and n > 500
        }


def test_rows_are_what_encode_makes_and_are_computed_once(tmp_path):
    encode = Squares()
    rows, left_out = stored(range(600), encode, KEY, tmp_path)
    assert np.array_equal(rows, [[n, n * n] for n in range(600)])
    assert left_out == dict.fromkeys(range(501, 600, 2), "odd")
    assert isinstance(rows, np.memmap) and not rows.flags.writeable

    calls = encode.calls
    rows, again = stored(range(600), encode, KEY, tmp_path)
    assert encode.calls == calls and again == left_out and rows[9, 1] == 81


def test_another_key_is_another_file(tmp_path):
    encode = Squares()
    stored(range(10), encode, KEY, tmp_path)
    stored(range(10), encode, KEY | {"of": "others"}, tmp_path)
    assert encode.calls == 2 and len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("damage", [b"", b"not ours at all", "cut", "longer"])
def test_a_damaged_file_is_computed_anew(tmp_path, damage):
    stored(range(100), Squares(), KEY, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-9], "longer": whole + b"x"}.get(damage, damage))
    encode = Squares()
    rows, _ = stored(range(100), encode, KEY, tmp_path)
    assert encode.calls == 1 and rows[99, 1] == 99 * 99 and path.read_bytes() == whole


def test_no_byte_of_header_or_notes_can_change_unnoticed(tmp_path):
    """Each byte in turn: what is then read is right, from the file or computed anew."""
    expected, left_out = stored(range(501, 520), Squares(), KEY, tmp_path)
    expected = np.array(expected)
    (path,) = tmp_path.glob("*.npy")
    for damaged, bytes_in_it in ((path, 128), (path.with_suffix(".json"), path.with_suffix(".json").stat().st_size)):
        whole = damaged.read_bytes()
        for position in range(bytes_in_it):
            damaged.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
            encode = Squares()
            rows, reasons = stored(range(501, 520), encode, KEY, tmp_path)
            assert encode.calls or damaged.suffix == ".json"  # of those some spaces do not count
            assert np.array_equal(rows, expected) and rows.dtype == expected.dtype and reasons == left_out, position
        damaged.write_bytes(whole)


def test_a_failure_leaves_no_file_behind(tmp_path):
    def encode(numbers):
        if 256 in numbers:
            raise RuntimeError("in the second chunk")
        return Squares()(numbers)

    with pytest.raises(RuntimeError, match="second chunk"):
        stored(range(600), encode, KEY, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_full_disk_is_the_users_to_mend(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device.*data.cache_dir"):
        stored(range(10), Squares(), KEY, tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def test_two_processes_compute_it_once(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        import numpy as np
        from transfer_learning.data.stored import stored

        def encode(numbers):
            with open(sys.argv[1] + "/calls", "a") as file:
                file.write("x")
            time.sleep(0.5)
            return np.array([[n] for n in numbers]), {}

        rows, _ = stored(range(50), encode, {"what": "slow"}, sys.argv[1])
        assert rows[:, 0].tolist() == list(range(50))
        """
    )
    runs = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert (tmp_path / "calls").read_text() == "x"
