import os

import pytest

from tests.conftest import needs_pipes
from transfer_learning.cli.images import image_files
from transfer_learning.utilities.errors import UserError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three images at three depths, notes beside one; they are listed, never opened."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.png", "photos/x/b.png", "photos/x/notes.txt", "photos/x/y/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")


IMAGES = ["photos/a.png", "photos/x/b.png", "photos/x/y/c.png"]


@pytest.mark.parametrize(
    "paths",
    [
        ["photos/**"],
        ["photos/**/*.png"],
        ["photos", "photos/x"],
        ["photos/a.png", "photos/../photos/a.png", "photos/x"],
        ["photos/*"],
    ],
)
def test_each_file_is_listed_once(photos, paths):
    assert image_files(paths) == IMAGES


def test_a_file_that_is_named_twice_keeps_its_first_place(photos):
    assert image_files(["photos/x/b.png", "photos"]) == ["photos/x/b.png", "photos/a.png", "photos/x/y/c.png"]


def test_what_a_pattern_names_itself_is_taken_as_it_is(photos):
    assert image_files(["photos/x/*"]) == ["photos/x/b.png", "photos/x/notes.txt", "photos/x/y/c.png"]


@needs_pipes
def test_a_link_that_leads_nowhere_is_listed_but_a_pipe_is_refused(photos):
    os.symlink("/nowhere/x.png", "photos/gone.png")
    for paths in (["photos"], ["photos/*"], ["photos/**"]):
        assert sorted(image_files(paths)) == sorted([*IMAGES, "photos/gone.png"])
    assert image_files(["photos/gone.png"]) == ["photos/gone.png"]
    os.mkfifo("photos/pipe.png")
    with pytest.raises(UserError, match=r"photos/pipe\.png: a pipe, a socket or a device"):
        image_files(["photos/*"])
