import os

import pytest

from transfer_learning.atomic import replacing


def dies_at(path, step) -> int:
    """A process that writes `path` and is gone at once, as if killed, at a step of it. Returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for name in ("fsync", "replace"):
        if step == f"before {name}":
            setattr(os, name, lambda *_: os._exit(9))
    with replacing(path) as file:
        file.write(b"new" * 100_000)
        if step == "while writing":
            os._exit(9)
    os._exit(0)


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_process_killed_at_any_step_leaves_the_old_or_the_new(tmp_path, before):
    path = tmp_path / "file"
    for step, code in (("while writing", 9), ("before fsync", 9), ("before replace", 9), ("not", 0)):
        if before:
            path.write_bytes(before)
        assert dies_at(path, step) == code
        if code:
            assert (path.read_bytes() if path.exists() else None) == before
    assert path.read_bytes() == b"new" * 100_000
    assert [each.name for each in tmp_path.iterdir()] == ["file"]  # what the killed ones left was taken over


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and [each.name for each in tmp_path.iterdir()] == ["file"]
