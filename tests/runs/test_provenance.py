import importlib.metadata
import shlex
import subprocess

import torch

from transfer_learning.provenance import attempt


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_it_tells_the_commit_and_whether_files_differ_from_it(tmp_path):
    assert attempt(["python"], tmp_path, torch.device("cpu"))["git_commit"] is None  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    clean = attempt(["python"], tmp_path, torch.device("cpu"))
    (tmp_path / "file").write_text("2")
    dirty = attempt(["python"], tmp_path, torch.device("cpu"))
    assert clean["git_commit"] == dirty["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert (clean["git_dirty"], dirty["git_dirty"]) == (False, True)


def test_the_command_can_be_pasted_and_versions_are_those_installed(tmp_path):
    words = ["python", "train.py", "data.root=/my photos", "a=$HOME"]
    told = attempt(words, tmp_path, torch.device("cpu"))
    assert shlex.split(told["command"]) == words
    assert told["packages"]["torch"] == importlib.metadata.version("torch")
    assert told["device"].startswith("cpu") and told["machine"]["processor"] and told["machine"]["cores"] >= 1
