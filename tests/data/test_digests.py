import builtins
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from transfer_learning.data.digests import UNREADABLE, FileDigests
from transfer_learning.utilities.files import read_checked_json


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def files(tmp_path):
    """Three files: their contents are their names."""
    paths = [tmp_path / "images" / name for name in ("one", "two", "six")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """digests(paths): the digests and the names of the files that were read, by a new FileDigests in `kept`."""
    reads, opened = [], builtins.open

    def counting(path, *arguments, **settings):
        if Path(path).parent == tmp_path / "images":
            reads.append(Path(path).name)
        return opened(path, *arguments, **settings)

    def compute(paths, folder=tmp_path / "kept"):
        reads.clear()
        with monkeypatch.context() as patched:
            patched.setattr(builtins, "open", counting)
            return FileDigests(folder)(paths), sorted(reads)

    return compute


@pytest.fixture
def later(monkeypatch):
    """later(seconds): from now on the clock is that much ahead of the files' time stamps."""
    now = time.time_ns

    def ahead(seconds):
        monkeypatch.setattr(time, "time_ns", lambda: now() + int(seconds * 1e9))

    return ahead


def test_digests_are_sha256_in_the_order_of_the_files(files, digests):
    expected = [sha256(path.name.encode()) for path in files]
    assert digests(files)[0] == expected
    assert digests([files[2], files[0], files[2]])[0] == [expected[2], expected[0], expected[2]]
    assert digests([])[0] == []


def test_an_unchanged_file_is_not_read_again(files, digests, later):
    later(10)
    expected, read = digests(files)
    assert read == ["one", "six", "two"]
    assert digests(files) == (expected, [])
    assert digests([files[1], Path(os.path.relpath(files[0]))]) == ([expected[1], expected[0]], [])


def test_only_a_new_file_is_read_and_the_others_stay_known(files, digests, later):
    later(10)
    digests(files[:1])
    assert digests(files[1:])[1] == ["six", "two"]
    assert digests(files)[1] == []


def test_a_changed_file_is_read_again_even_with_the_old_size_and_modification_time(files, digests, later):
    later(10)
    digests(files)
    before = files[0].stat()
    while files[0].stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock has ticks of some milliseconds
        files[0].write_bytes(b"ONE")
        os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = files[0].stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    found, read = digests(files)
    assert found[0] == sha256(b"ONE") and read == ["one"]
    assert digests(files) == (found, [])


def test_a_file_in_another_files_place_is_read_again(files, digests, later):
    later(10)
    digests(files)
    os.replace(files[1], files[0])
    assert digests(files[:1]) == ([sha256(b"two")], ["one"])


def test_a_file_that_changed_within_the_last_two_seconds_is_always_read(files, digests, later):
    for _ in range(3):
        assert digests(files)[1] == ["one", "six", "two"]
    later(1.5)
    os.utime(files[0], (0, 0))  # an old modification time, but a new change time
    os.utime(files[1], (time.time() + 3600,) * 2)
    os.utime(files[2])
    for _ in range(2):
        assert digests(files)[1] == ["one", "six", "two"]
    later(10)
    digests(files)
    assert digests(files)[1] == ["two"]  # its modification time is in the future


def test_unreadable_files_are_never_kept(files, digests, later, tmp_path):
    later(10)
    missing, directory = tmp_path / "images" / "missing", tmp_path / "images" / "directory"
    directory.mkdir()
    for _ in range(2):
        found, read = digests([files[0], missing, directory])
        assert found[0] == sha256(b"one") and "directory" in read and "missing" in read
        assert all(each.startswith(UNREADABLE) for each in found[1:]) and found[1] != found[2]
        assert str(missing) in found[1]
    kept = json.loads((tmp_path / "kept" / "digests.json").read_text())
    assert kept.keys() == {str(files[0]), "sha256"}
    missing.write_bytes(b"here")
    assert digests([missing])[0] == [sha256(b"here")]


def test_without_a_folder_nothing_is_kept(files, digests, later, tmp_path):
    later(10)
    for _ in range(2):
        assert digests(files, folder=None)[1] == ["one", "six", "two"]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def other_digest(content):
    """The content of digests.json with another digest of the first file, but the old checksum."""
    kept = json.loads(content)
    next(value for value in kept.values() if isinstance(value, list))[-1] = "0" * 64
    return json.dumps(kept).encode()


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda _: b"text", lambda _: b"[]", lambda _: b"{}", lambda kept: kept[:-9], other_digest],
)
def test_a_damaged_digests_file_is_ignored_and_replaced(files, digests, later, tmp_path, damage):
    later(10)
    expected, _ = digests(files)
    kept = tmp_path / "kept" / "digests.json"
    kept.write_bytes(damage(kept.read_bytes()))
    assert digests(files) == (expected, ["one", "six", "two"])
    assert digests(files) == (expected, [])


def test_several_processes_can_keep_digests_at_once(tmp_path, monkeypatch):
    """Sweeps and trainings on several devices list the same folder at the same time. The lock knows no threads."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10 * 10**9)
    paths = [tmp_path / f"{number}" for number in range(80)]
    for path in paths:
        path.write_text("content")

    def keep(part):
        for path in part:
            FileDigests(tmp_path)([path])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(keep, (paths[::2], paths[1::2])))
    assert read_checked_json(tmp_path / "digests.json").keys() == set(map(str, paths))
