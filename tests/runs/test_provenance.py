import importlib.metadata
import os
import shlex
import subprocess

import torch

from transfer_learning.runs.provenance import attempt

CPU = torch.device("cpu")


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}  # without the developer's hooks and signatures
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commit_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # the folder may be inside a repository
    outside = attempt(["python"], tmp_path, CPU)  # no repository
    assert outside["git_commit"] is None and outside["git_dirty"] is None
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    clean = attempt(["python"], tmp_path, CPU)
    (tmp_path / "file").write_text("2")
    dirty = attempt(["python"], tmp_path, CPU)
    assert clean["git_commit"] == dirty["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert (clean["git_dirty"], dirty["git_dirty"]) == (False, True)


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert attempt(["python"], tmp_path, CPU)["git_commit"] is None


def test_command_can_be_pasted_and_versions_are_those_installed(tmp_path):
    words = ["python", "train.py", "data.root=/my photos", "a=$HOME"]
    described = attempt(words, tmp_path, CPU)
    assert shlex.split(described["command"]) == words
    assert described["packages"]["torch"] == importlib.metadata.version("torch")
    assert described["device"].startswith("cpu")
    assert described["machine"]["processor"] and described["machine"]["cores"] >= 1
