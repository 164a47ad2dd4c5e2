import errno
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from filelock import FileLock

from transfer_learning.data.cache import HEADER, CachedArray, list_arrays, remove_unused
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.files import read_checked_json, write_checked_json

KEY = {"what": "squares", "of": "numbers"}


def ids_of(numbers):
    return [str(number) for number in numbers]


class Squares:
    """Computes squares of the numbers in a CachedArray's ids, and keeps the numbers that it computed."""

    def __init__(self, folder, key=KEY):
        self.cached, self.computed = CachedArray(folder, "squares", key), []

    def get(self, numbers):
        """(N, 2) rows in the order of the numbers, and the reasons of unreadable ones."""
        found = self.get_rows(numbers)
        return np.array(found.array[found.rows]), found.remarks["unreadable"]

    def get_rows(self, numbers):
        numbers = list(numbers)
        return self.cached.get(ids_of(numbers), lambda positions: self.compute([numbers[n] for n in positions]))

    def compute(self, numbers):
        self.computed += numbers
        reasons = {place: "odd" for place, n in enumerate(numbers) if n % 2 and n > 500}
        sizes = {place: [n, n / 3] for place, n in enumerate(numbers) if n % 100 == 0}
        return np.array([[n, n * n] for n in numbers]), {"unreadable": reasons, "sizes": sizes}


def expected(numbers):
    return np.array([[n, n * n] for n in numbers])


@pytest.fixture
def squares(tmp_path):
    """squares(key): a new Squares in the test's folder."""
    return lambda key=KEY: Squares(tmp_path, key)


def test_rows_are_what_compute_returns_and_are_computed_once(squares):
    first = squares()
    rows, unreadable = first.get(range(600))
    assert np.array_equal(rows, expected(range(600))) and first.computed == list(range(600))
    assert unreadable == dict.fromkeys(range(501, 600, 2), "odd")

    second = squares()
    found = second.get_rows(range(600))
    assert isinstance(found.array, np.memmap) and not found.array.flags.writeable
    assert found.rows.dtype == np.int64 and found.remarks["unreadable"] == unreadable
    assert np.array_equal(found.array[found.rows], rows) and not second.computed


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_rows_have_any_shape_and_type(tmp_path, dtype, shape):
    expected = np.arange(5 * int(np.prod(shape)), dtype=dtype).reshape(5, *shape)
    for _ in range(2):  # the second time from the file
        found = CachedArray(tmp_path, "any", {}).get(ids_of(range(5)), lambda positions: (expected[positions], {}))
        assert np.array_equal(found.array[found.rows], expected)
        assert found.array.dtype == dtype and found.array.shape == (5, *shape)


def test_ids_come_in_any_order_and_more_than_once(squares):
    one = squares()
    numbers = [7, 503, 3, 7, 501, 3]
    rows, unreadable = one.get(numbers)
    assert np.array_equal(rows, expected(numbers)) and unreadable == {1: "odd", 4: "odd"}
    assert one.computed == [7, 503, 3, 501]
    assert np.array_equal(one.get(numbers[::-1])[0], expected(numbers[::-1])) and len(one.computed) == 4


def test_remarks_of_each_kind_are_kept_with_their_ids_as_plain_values(squares):
    for _ in range(2):  # the second time from the file
        found = squares().get_rows([400, 7, 503, 100, 400])
        assert found.remarks == {
            "unreadable": {2: "odd"},
            "sizes": {0: [400, 400 / 3], 3: [100, 100 / 3], 4: [400, 400 / 3]},
        }
    added = squares().get_rows([100, 200])
    assert added.remarks == {"unreadable": {}, "sizes": {0: [100, 100 / 3], 1: [200, 200 / 3]}}


def test_a_listing_of_an_older_version_is_computed_anew(squares, tmp_path):
    squares().get(range(600))
    (listing,) = tmp_path.glob("*.json")
    listed = read_checked_json(listing)
    write_checked_json(listing, {key: value for key, value in listed.items() if key != "remarks"} | {"unreadable": {}})
    again = squares()
    assert again.get(range(600))[1] == dict.fromkeys(range(501, 600, 2), "odd") and len(again.computed) == 600


def test_another_key_is_another_file(squares, tmp_path):
    others = squares(KEY | {"of": "others"})
    squares().get(range(10))
    others.get(range(10))
    assert others.computed == list(range(10)) and len(list(tmp_path.glob("squares-*.rows"))) == 2


def test_rows_are_added_and_old_ones_stay_where_they_are(squares, tmp_path):
    one = squares()
    before = one.get_rows(range(10, 510))
    assert len(before.array) == 500
    one.computed.clear()
    after = one.get_rows(range(0, 900, 2))
    assert one.computed == [n for n in range(0, 900, 2) if not 10 <= n < 510]
    assert np.array_equal(after.array[after.rows], expected(range(0, 900, 2)))
    assert np.array_equal(after.array[:500], before.array)
    assert np.array_equal(before.array[before.rows], expected(range(10, 510)))  # mapped before, and still right
    rows, unreadable = squares().get(range(10, 510))
    assert np.array_equal(rows, expected(range(10, 510))) and unreadable == before.remarks["unreadable"]
    assert len(list(tmp_path.glob("squares-*.rows"))) == 1


@pytest.mark.parametrize("damage", [b"", b"not a file of this class", "cut", "missing"])
def test_a_damaged_file_is_computed_anew(squares, tmp_path, damage):
    squares().get(range(100))
    (path,) = tmp_path.glob("*.rows")
    complete = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes({"cut": complete[:-9]}.get(damage, damage))
    again = squares()
    rows, _ = again.get(range(100))
    assert again.computed == list(range(100)) and rows[99, 1] == 99 * 99 and path.read_bytes() == complete


@pytest.mark.parametrize("kind", [dict(dtype=np.int32), dict(shape=(3,)), dict(shape=())])
def test_new_rows_of_another_type_or_shape_are_refused_and_the_old_ones_stay(squares, tmp_path, kind):
    """As after an update of torch that computes features in another precision."""
    squares().get(range(9))
    made = np.ones((1, *kind.get("shape", (2,))), kind.get("dtype", np.int64))
    with pytest.raises(ArgumentError, match=f"cache_dir='{tmp_path}': the rows of squares-.* are <i8 .*, new ones "):
        CachedArray(tmp_path, "squares", KEY).get(["9"], lambda positions: (made, {}))
    again = squares()
    assert np.array_equal(again.get(range(9))[0], expected(range(9))) and not again.computed


def test_bytes_after_the_last_row_do_no_harm(squares, tmp_path):
    """A process that died while it added rows leaves such bytes."""
    squares().get(range(100))
    (path,) = tmp_path.glob("*.rows")
    path.write_bytes(path.read_bytes() + b"x" * 1001)
    again = squares()
    assert np.array_equal(again.get(range(200))[0], expected(range(200))) and again.computed == list(range(100, 200))
    assert np.array_equal(squares().get(range(200))[0], expected(range(200)))


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"null", "cut", "missing"])
def test_a_damaged_listing_computes_anew_and_leaves_arrays_that_are_mapped(squares, tmp_path, damage):
    mapped = squares().get_rows(range(100))
    (path,) = tmp_path.glob("*.json")
    complete = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(complete[:-9] if damage == "cut" else damage)
    again = squares()
    assert np.array_equal(again.get(range(1000, 1300))[0], expected(range(1000, 1300))) and len(again.computed) == 300
    assert np.array_equal(mapped.array[mapped.rows], expected(range(100)))


def test_an_interruption_while_a_missing_file_is_computed_anew_leaves_no_wrong_rows(squares, tmp_path, monkeypatch):
    """The listing of the file that is missing must not be taken for that of the new one, whose order is another."""

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    squares().get(range(10))
    (path,) = tmp_path.glob("*.rows")
    path.unlink()
    with monkeypatch.context() as patched, pytest.raises(ArgumentError, match="No space left"):
        patched.setattr(os, "replace", full)
        squares().get(range(9, -1, -1))
    assert np.array_equal(squares().get(range(10))[0], expected(range(10)))


def test_the_file_of_another_key_is_not_read(squares, tmp_path):
    """Only the header tells, since the listing is complete."""
    squares().get(range(10))
    (path,) = tmp_path.glob("*.rows")
    other = squares(KEY | {"of": "others"})
    other.get(range(10))
    (other_path,) = set(tmp_path.glob("*.rows")) - {path}
    path.write_bytes(other_path.read_bytes())
    again = squares()
    again.get(range(10))
    assert len(again.computed) == 10


def test_no_byte_of_header_or_listing_can_change_unnoticed(squares, tmp_path):
    """Each byte in turn: what is then read is right, from the file or computed anew."""
    numbers = range(501, 520)
    rows, unreadable = squares().get(numbers)
    (path,) = tmp_path.glob("*.rows")
    for damaged, size in ((path, 128), (path.with_suffix(".json"), path.with_suffix(".json").stat().st_size)):
        complete = damaged.read_bytes()
        for position in range(size):
            flipped = bytes([complete[position] ^ 1 << position % 8])
            damaged.write_bytes(complete[:position] + flipped + complete[position + 1 :])
            again = squares()
            found, reasons = again.get(numbers)
            assert again.computed or damaged.suffix == ".json"  # some of its spaces do not count
            assert np.array_equal(found, rows) and found.dtype == rows.dtype and reasons == unreadable, position
        damaged.write_bytes(complete)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_first_chunk_leaves_no_file(squares, tmp_path, error):
    one = squares()

    def compute(numbers):
        raise error("first chunk")

    one.compute = compute
    with pytest.raises(error, match="first chunk"):
        one.get(range(600))
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_later_keeps_the_chunks_before(squares, error):
    one = squares()

    def compute(numbers):
        if 256 in numbers:
            raise error("second chunk")
        return Squares.compute(one, numbers)

    one.compute = compute
    with pytest.raises(error, match="second chunk"):
        one.get(range(600))
    again = squares()
    assert np.array_equal(again.get(range(600))[0], expected(range(600))) and again.computed == list(range(256, 600))


@pytest.fixture
def clock(monkeypatch):
    """clock: seconds that only the test lets pass; each writing of a listing takes one."""
    passed = [0.0]

    def write(path, value):
        passed[0] += 1
        write_checked_json(path, value)

    monkeypatch.setattr("transfer_learning.data.cache.write_checked_json", write)
    monkeypatch.setattr("time.monotonic", lambda: passed[0])
    return passed


def test_listings_take_a_tenth_of_the_time(squares, clock, monkeypatch):
    """If each chunk takes two seconds, every fifth chunk is followed by a listing that takes one."""
    one, listed = squares(), []

    def compute(numbers):
        clock[0] += 2
        listed.append(len((read_checked_json(one.cached.path.with_suffix(".json")) or {"ids": []})["ids"]))
        return Squares.compute(one, numbers)

    one.compute = compute
    rows, _ = one.get(range(256 * 12 + 1))
    assert np.array_equal(rows, expected(range(256 * 12 + 1)))
    assert listed == [0] + [256] * 5 + [256 * 6] * 5 + [256 * 11] * 2
    again = squares()
    assert np.array_equal(again.get(range(256 * 12 + 1))[0], rows) and not again.computed


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_chunks_that_had_not_been_listed(squares, clock, error):
    one = squares()

    def compute(numbers):
        if 1000 in numbers:
            raise error("fourth chunk")
        return Squares.compute(one, numbers)

    one.compute = compute
    with pytest.raises(error, match="fourth chunk"):
        one.get(range(1100))
    again = squares()
    assert np.array_equal(again.get(range(1100))[0], expected(range(1100))) and again.computed == list(range(768, 1100))


@pytest.mark.parametrize("stored", [0, 10])
def test_a_full_disk_is_an_error_of_the_cache_folder(squares, tmp_path, monkeypatch, stored):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if stored:
        squares().get(range(stored))
    with monkeypatch.context() as patched, pytest.raises(ArgumentError, match="No space left on device") as error:
        patched.setattr(os, "fsync", full)
        squares().get(range(20))
    assert error.value.argument == "cache_dir" and error.value.value == str(tmp_path)
    assert isinstance(error.value, UserError) and "choose another folder" in error.value.message
    assert len(list(tmp_path.glob("*.rows"))) == bool(stored)
    again = squares()
    assert np.array_equal(again.get(range(20))[0], expected(range(20))) and again.computed == list(range(stored, 20))


SCRIPT = """
import os, signal, sys, time
import numpy as np
from transfer_learning.data.cache import HEADER, CachedArray, list_arrays, remove_unused

folder, killed = sys.argv[1], len(sys.argv) > 2

def compute(positions):
    with open(folder + "/calls", "a") as file:
        file.write(f"{len(positions)} ")
    if killed and 256 in positions:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    return np.array([[n, n * n] for n in positions]), {"unreadable": {}}

found = CachedArray(folder, "squares", {"what": "squares", "of": "numbers"}).get([str(n) for n in range(300)], compute)
assert found.array[found.rows].tolist() == [[n, n * n] for n in range(300)]
"""


def started(tmp_path, *arguments):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), *arguments])


@pytest.mark.slow
def test_a_killed_process_loses_one_chunk_and_two_others_compute_it_once(squares, tmp_path):
    assert started(tmp_path, "killed").wait(timeout=120) == -signal.SIGKILL
    assert (tmp_path / "calls").read_text() == "256 44 "
    one = squares()
    assert np.array_equal(one.get(range(256))[0], expected(range(256))) and not one.computed

    processes = [started(tmp_path) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert (tmp_path / "calls").read_text() == "256 44 44 "


def test_arrays_are_listed_with_what_they_hold_and_removed_if_unused(tmp_path):
    rows = np.arange(12.0).reshape(3, 4)
    for name in ("old", "new"):
        CachedArray(tmp_path, name, {"name": name}, f"the {name} rows").get(["a", "b", "c"], lambda _: (rows, {}))
    old, new = (next(tmp_path.glob(f"{name}-*.rows")) for name in ("old", "new"))
    os.utime(old, (1000, 1000))
    broken = tmp_path / "broken-0123456789abcdef.rows"
    broken.write_bytes(b"x")
    os.utime(broken, (500, 500))
    listed = list_arrays(tmp_path)
    assert [each.path for each in listed] == [new, old, broken]
    assert [each.about for each in listed[:2]] == ["the new rows", "the old rows"]
    assert listed[2].about == "unfinished or damaged: it will be computed again"
    assert [each.rows for each in listed] == [3, 3, 0] and listed[0].size == HEADER + rows.nbytes
    assert listed[1].last_used == 1000
    CachedArray(tmp_path, "old", {"name": "old"}).get(["a"], lambda _: (rows, {}))
    assert list_arrays(tmp_path)[0].path == old  # it has been used now
    assert remove_unused(old) and not old.exists() and not old.with_suffix(".json").exists()
    assert [each.path for each in list_arrays(tmp_path)] == [new, broken]


def test_array_that_another_process_has_just_removed_is_not_listed_and_gone(tmp_path, monkeypatch):
    for name in ("a", "b"):
        CachedArray(tmp_path, name, {}).get(["a"], lambda _: (np.zeros((1, 2)), {}))
    first, second = (next(tmp_path.glob(f"{name}-*.rows")) for name in "ab")

    def read(path):
        first.unlink(missing_ok=True)  # between the search for files and the look at them
        return read_checked_json(path)

    monkeypatch.setattr("transfer_learning.data.cache.read_checked_json", read)
    assert [each.path for each in list_arrays(tmp_path)] == [second] and remove_unused(first)


def test_array_is_kept_while_a_map_of_it_is_alive(tmp_path):
    found = CachedArray(tmp_path, "any", {}).get(["a", "b"], lambda _: (np.arange(4.0).reshape(2, 2), {}))
    path, view = list_arrays(tmp_path)[0].path, found.array[1:]
    del found
    assert not remove_unused(path) and path.exists() and view.tolist() == [[2.0, 3.0]]
    del view
    assert remove_unused(path)


def test_array_is_kept_while_it_is_extended(tmp_path):
    cached = CachedArray(tmp_path, "any", {})
    cached.get(["a"], lambda _: (np.zeros((1, 2)), {}))
    with FileLock(cached.path.with_suffix(".lock")):  # as while rows are added
        assert not remove_unused(cached.path)
    assert remove_unused(cached.path)


@pytest.mark.slow
def test_array_is_kept_while_another_process_uses_it(tmp_path):
    cached = CachedArray(tmp_path, "any", {})
    cached.get(["a"], lambda _: (np.zeros((1, 2)), {}))
    code = f"""
import sys
import numpy as np
from transfer_learning.data.cache import HEADER, CachedArray, list_arrays, remove_unused
found = CachedArray({str(tmp_path)!r}, "any", {{}}).get(["a"], None)
print("mapped", flush=True)
sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "mapped\n"
        assert not remove_unused(cached.path) and cached.path.exists()
    finally:
        other.communicate("\n", timeout=60)
    assert remove_unused(cached.path)


def test_rows_that_were_found_and_computed_are_told_apart(squares, caplog):
    caplog.set_level("INFO")
    for numbers, told in (
        ([1, 2, 2], "2 rows computed"),
        ([2, 1], "2 rows found"),
        ([2, 3], "1 rows found and 1 rows computed"),
    ):
        caplog.clear()
        squares().get(numbers)
        assert f".rows: {told};" in caplog.text
