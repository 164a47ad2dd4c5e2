import json
import os

import pytest

from tests.conftest import needs_fork
from transfer_learning.utilities import files
from transfer_learning.utilities.files import (
    atomic_folder,
    atomic_write,
    read_checked_json,
    write_checked_json,
    write_text,
)


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


@needs_fork
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
    write_checked_json(path, value)
    assert read_checked_json(path) == value
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_checked_json(path) in (None, value)
    path.write_bytes(whole.replace(b"0.5", b"0.7"))
    assert read_checked_json(path) is None


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1, 2]", b"3", b"\xff\xfe", json.dumps({"a": 1}).encode()])
def test_missing_or_foreign_json(tmp_path, content):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    assert read_checked_json(path) is None


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_link_stays_and_the_file_that_it_leads_to_is_written(tmp_path, before):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    link.symlink_to(target)
    if before:
        target.write_bytes(before)
    write_text(link, "new")
    assert link.is_symlink() and not target.is_symlink() and target.read_text() == "new"
    assert [len(list(folder.iterdir())) for folder in (tmp_path, tmp_path / "elsewhere")] == [2, 1]


def test_the_longest_names_and_folders_that_are_not_there(tmp_path):
    for name in ("x" * 255, "猫" * 85):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"
    with pytest.raises(FileNotFoundError) as raised:
        write_text(tmp_path / "nowhere" / "file", "new")
    assert raised.value.filename == str(tmp_path / "nowhere" / "file")


def test_halves_of_a_character_are_escaped(tmp_path):
    write_text(tmp_path / "file", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "file").read_text() == "caf\\udce9"


def write_folder(path, content, replaced=(), names=("a", "last")):
    with atomic_folder(path, "last", replaced) as folder:
        for name in names:
            write_text(folder / name, content)


def test_a_folder_appears_whole_and_keeps_what_is_not_its_own(tmp_path):
    path = tmp_path / "above" / "folder"
    write_folder(path, "old", names=("a", "b", "last"))
    assert path.stat().st_mode & 0o777 == (tmp_path / "above").stat().st_mode & 0o777
    (path / "mine").write_text("mine")
    write_folder(path, "new", replaced=["a", "b", "../../outside"])
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "new", "last": "new", "mine": "mine"}
    (tmp_path / "link").symlink_to(path)
    write_folder(tmp_path / "link", "through")
    assert (tmp_path / "link").is_symlink() and (path / "a").read_text() == "through"
    assert [len(list(folder.iterdir())) for folder in (tmp_path, tmp_path / "above")] == [2, 1]


@pytest.mark.parametrize("before", [True, False])
def test_a_failure_leaves_the_old_folder_or_none(tmp_path, before):
    path = tmp_path / "folder"
    if before:
        write_folder(path, "old")
    with pytest.raises(OSError) as raised, atomic_folder(path, "last") as folder:
        write_text(folder / "a", "new")
        raise OSError(28, "No space left on device", str(folder / "a"))
    assert raised.value.filename == str(path / "a")
    assert [file.read_text() for file in tmp_path.rglob("*") if file.is_file()] == ["old", "old"] * before
    assert path.exists() == before and not list(tmp_path.rglob(".*"))


@needs_fork
def test_a_process_killed_while_files_move_leaves_no_last_file(tmp_path, monkeypatch):
    path, replace = tmp_path / "folder", os.replace
    write_folder(path, "old")

    def killed(old, new):
        if os.path.dirname(new) == str(path):
            os._exit(9)
        replace(old, new)

    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "replace", killed)
        write_folder(path, "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (path / "last").exists()


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
