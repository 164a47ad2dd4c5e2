import os
import socket

import pytest

from tests.conftest import needs_pipes
from transfer_learning.data.listing import EMPTY, LINKED, RESULTS, SPECIAL, list_files, no_folder
from transfer_learning.utilities.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """folder(*paths): a folder with these files."""

    def make(*paths):
        root = tmp_path / "root"
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        return root

    return make


def names(root):
    return [file.as_posix() for file in list_files(root).files]


def test_files_are_sorted_and_hidden_ones_are_left_out(folder):
    root = folder(
        "b/2", "b/1", "a/3/x", ".hidden/x", "a/._1", "__MACOSX/1", "a/@eaDir/1.jpg/SYNO_S.jpg", "$RECYCLE.BIN/1", "c"
    )
    assert names(root) == ["a/3/x", "b/1", "b/2", "c"]
    assert list_files(root).left_out == {}


def test_folders_of_runs_and_evaluations_are_left_out(folder):
    run = ("config.yaml", "train.log", "curves.png", "evaluations/dk/mistakes.png")
    root = folder(
        *(f"runs/first/{name}" for name in run),
        *(f"found/{name}" for name in ("evaluation.json", "predictions.csv", "mistakes.png")),
        *(f"a/{name}" for name in ("config.yaml", "predictions.csv", "1.png")),
    )
    assert names(root) == ["a/1.png", "a/config.yaml", "a/predictions.csv"]
    assert list_files(root).left_out == {RESULTS: [f"{root}/found", f"{root}/runs/first"]}
    assert len(names(root / "runs" / "first")) == 4  # a folder that was asked for


def test_names_that_only_begin_like_a_systems_folder_are_listed(folder):
    assert names(folder("#recycled paper/1", "@eaDir.png", "b/__MACOSX.jpg")) == [
        "#recycled paper/1",
        "@eaDir.png",
        "b/__MACOSX.jpg",
    ]


def test_a_link_to_a_folder_above_ends_there(folder):
    root = folder("a/1", "b/1")
    (root / "a/up").symlink_to("..")
    (root / "b/self").symlink_to(".")
    (root / "here").symlink_to(root)
    assert names(root) == ["a/1", "b/1"]
    assert list_files(root).left_out == {LINKED: [f"{root}/{name}" for name in ("a/up", "b/self", "here")]}


def test_a_folder_inside_is_listed_by_its_own_path_whatever_links_lead_to_it(folder):
    root = folder("z/1", "m/1")
    (root / "a").symlink_to("z")
    (root / "m/more").symlink_to("../z")
    assert names(root) == ["m/1", "z/1"]
    assert list_files(root).left_out == {LINKED: [f"{root}/a", f"{root}/m/more"]}


def test_a_folder_outside_is_listed_by_the_first_link(folder, tmp_path):
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "outside/deep/1").write_text("x")
    root = folder("m/1")
    for name in ("c", "b", "m/n"):
        (root / name).symlink_to(tmp_path / "outside")
    assert names(root) == ["b/deep/1", "m/1"]
    assert list_files(root).left_out == {LINKED: [f"{root}/c", f"{root}/m/n"]}


def test_two_folders_that_link_to_each_other_end(folder):
    root = folder("a/1", "b/1")
    (root / "a/b").symlink_to("../b")
    (root / "b/a").symlink_to("../a")
    assert names(root) == ["a/1", "b/1"]


def test_links_to_files_are_files_and_broken_ones_too(folder):
    root = folder("a/1")
    (root / "a/2").symlink_to("1")
    (root / "a/3").symlink_to("nowhere")
    (root / "a/4").symlink_to("4")
    assert names(root) == ["a/1", "a/2", "a/3", "a/4"]


@needs_pipes
def test_pipes_sockets_and_devices_are_not_opened(folder, tmp_path, monkeypatch):
    root = folder("a/1")
    os.mkfifo(root / "a/pipe.jpg")
    (root / "a/zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(root / "a")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        found = list_files(root)
    assert [file.as_posix() for file in found.files] == ["a/1"]
    assert found.left_out == {SPECIAL: [f"{root}/a/{name}" for name in ("pipe.jpg", "socket.jpg", "zero.png")]}


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    root, scandir = folder("a/1", "b/1"), os.scandir

    def locked(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match=f"{root}/b: Permission denied; every folder must be readable"):
        list_files(root)


def test_empty_folders_are_named(folder):
    root = folder("a/1", "b/.DS_Store")
    (root / "c" / "d").mkdir(parents=True)
    assert names(root) == ["a/1"] and list_files(root).left_out == {EMPTY: [f"{root}/b", f"{root}/c/d"]}


def test_why_a_path_is_no_folder(folder, monkeypatch):
    root = folder("a")
    assert no_folder(root / "b") == no_folder(root / "a" / "b") == "no such folder"
    assert no_folder(root / "a") == "a file, not a folder"

    def locked(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", locked)
    assert no_folder(root) == "this folder cannot be reached (Permission denied)"
