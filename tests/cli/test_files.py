import os

import pytest

from tests.conftest import needs_pipes
from transfer_learning.cli.files import check_new
from transfer_learning.utilities.errors import UserError


def test_a_link_that_leads_nowhere_exists(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    for is_folder in (False, True):
        with pytest.raises(UserError, match=r"link: exists already\. .* or add --overwrite\.$"):
            check_new(link, overwrite=False, is_folder=is_folder)
        assert check_new(link, overwrite=True, is_folder=is_folder) == link
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "target")
    with pytest.raises(UserError, match=f"link: there is no folder {tmp_path}/nowhere"):
        check_new(link, overwrite=True)


@needs_pipes
def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(UserError, match="exists already, as another kind of file"):
            check_new(path, overwrite=True)


@pytest.mark.parametrize(
    "mark, owner, name",
    [
        ("config.yaml", "run", "predictions.csv"),
        ("config.yaml", "run", "split.csv"),
        ("evaluation.json", "evaluation", "predictions.csv"),
        ("audit.html", "audit", "audit.csv"),
        ("audit.html", "audit", "audit.html"),
        ("leaderboard.md", "sweep", "leaderboard.csv"),
    ],
)
def test_files_of_a_run_and_of_results_are_not_replaced(tmp_path, mark, owner, name):
    (tmp_path / mark).write_text("")
    (tmp_path / "link.csv").symlink_to(tmp_path / name)
    for path, overwrite in ((name, True), (name, False), ("link.csv", True)):  # also one that is written later
        with pytest.raises(UserError, match=rf"{name} is a file of the {owner} in this folder\. Choose .* --out\.$"):
            check_new(tmp_path / path, overwrite)
    (tmp_path / "mine.csv").write_text("")
    assert check_new(tmp_path / "mine.csv", overwrite=True) == tmp_path / "mine.csv"


def test_the_folder_of_a_run_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"the folder of a run.*with --explain\."):
            check_new(tmp_path, overwrite, True, "--explain")
    assert check_new(tmp_path / "evaluations", False, True) == tmp_path / "evaluations"
