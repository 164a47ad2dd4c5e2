import json
import os

import pytest

from transfer_learning.utilities import files
from transfer_learning.utilities.files import atomic_write, read_json, write_json, write_text


def killed_at(path, step) -> int:
    """Writes `path` in a process that exits at a step of it, as if killed. Returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for name in ("fsync", "replace"):
        if step == f"before {name}":
            setattr(os, name, lambda *_: os._exit(9))
    with atomic_write(path) as file:
        file.write(b"new" * 100_000)
        if step == "while writing":
            os._exit(9)
    os._exit(0)


@pytest.mark.parametrize("before", [None, b"old"])
def test_process_killed_at_any_step_leaves_the_old_or_the_new_content(tmp_path, before):
    path = tmp_path / "file"
    for step, code in (("while writing", 9), ("before fsync", 9), ("before replace", 9), ("not", 0)):
        if before:
            path.write_bytes(before)
        assert killed_at(path, step) == code
        if code:
            assert (path.read_bytes() if path.exists() else None) == before
    assert path.read_bytes() == b"new" * 100_000
    assert [each.name for each in tmp_path.iterdir()] == ["file"]  # the last write replaced the partial files


def test_failure_leaves_the_old_content_and_no_other_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "file", "größer 猫")
    assert (tmp_path / "file").read_bytes() == "größer 猫".encode()


def test_json_is_read_as_it_was_written_and_every_change_is_noticed(tmp_path):
    path, value = tmp_path / "file.json", {"ids": ["a", "b"], "shape": [3, 4], "nested": {"rate": 0.5, "none": None}}
    write_json(path, value)
    assert read_json(path) == value
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_json(path) in (None, value)
    path.write_bytes(whole.replace(b"0.5", b"0.7"))
    assert read_json(path) is None


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1, 2]", b"3", b"\xff\xfe", json.dumps({"a": 1}).encode()])
def test_missing_or_foreign_json(tmp_path, content):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) is None


@pytest.mark.parametrize("refused", [0, 1, 3])
def test_a_file_that_another_program_reads_for_a_moment_is_replaced_again(tmp_path, monkeypatch, refused):
    """As Windows refuses it. There are three attempts."""
    path, replace, tries = tmp_path / "file", os.replace, []

    def refuse(source, target):
        tries.append(target)
        if len(tries) <= refused:
            raise PermissionError(13, "Access is denied", str(source))
        replace(source, target)

    monkeypatch.setattr(files, "ATTEMPTS", 3)
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    if refused < 3:
        write_text(path, "new")
        assert path.read_text() == "new" and len(tries) == refused + 1
    else:
        with pytest.raises(PermissionError):
            write_text(path, "new")
        assert len(tries) == 3
    assert files.ATTEMPTS == 3 and not list(tmp_path.glob("*.partial"))
