import os
import time

import numpy as np
import pytest

from transfer_learning.data.cache import CachedArray


@pytest.fixture
def arrays(tmp_path):
    """Two cached arrays in tmp_path/cache: `old` was used 40 days ago, `new` now."""
    for name in ("old", "new"):
        cached = CachedArray(tmp_path / "cache", name, {}, f"{name} features of vgg16")
        cached.get(["a"], lambda _: (np.zeros((1, 250_000)), {}))
        if name == "old":
            long_ago = time.time() - 40 * 86400
            os.utime(cached.path, (long_ago, long_ago))
    return tmp_path / "cache"


def names(folder):
    return {path.name.split("-")[0] for path in folder.glob("*.rows")}


def test_list_has_size_age_and_content(arrays, verb):
    output = verb("cache", "--folder", arrays)
    new, old = output.out.splitlines()[2:4]
    assert new.split()[1:4] == ["1", "2.0", "0.0"] and old.split()[1:4] == ["1", "2.0", "40.0"]
    assert "new features of vgg16" in new and "old features of vgg16" in old
    assert output.out.splitlines()[-1] == f"{arrays}: 4.0 MB" and names(arrays) == {"old", "new"}


@pytest.mark.parametrize(("days", "left"), [("50", {"old", "new"}), ("30", {"new"}), ("all", set())])
def test_arrays_are_removed_by_the_days_since_their_use(arrays, verb, days, left):
    output = verb("cache", "--folder", arrays, "--remove", days)
    states = [line.split()[-1] for line in output.out.splitlines()[2:4]]
    assert names(arrays) == left and states.count("removed") == 2 - len(left)


def test_files_of_others_are_neither_listed_nor_removed(arrays, verb):
    others = {arrays / "table.rows": "a,b", arrays / "table.json": "{}", arrays / "empty.rows": ""}
    for path, text in others.items():
        path.write_text(text)
    assert "table" not in verb("cache", "--folder", arrays, "--remove", "all").out
    assert {path: path.read_text() for path in others} == others


def test_array_in_use_is_kept_and_said(arrays, verb):
    found = CachedArray(arrays, "new", {}).get(["a"], lambda _: None)
    output = verb("cache", "--folder", arrays, "--remove", "all")
    assert names(arrays) == {"new"} and "in use, kept" in output.out and found.array.shape == (1, 250_000)


@pytest.mark.parametrize("text", ["some", "-1", "nan", "0x1"])
def test_mistakes_are_one_line(arrays, verb, tmp_path, text):
    output = verb("cache", "--folder", arrays, f"--remove={text}")
    assert (output.code, output.err) == (
        1,
        f"transfer-learning: --remove {text}: expected a number of days, such as 30, or all.\n",
    )
    assert names(arrays) == {"old", "new"}
    assert "no such folder; --folder names another cache" in verb("cache", "--folder", tmp_path / "x").err
