import os
import shlex
import shutil
import subprocess
import sys

import pytest

from transfer_learning.cli.main import PROGRAM, main, parser
from transfer_learning.cli.project import PROJECT
from transfer_learning.cli.verbs import verbs
from transfer_learning.utilities.errors import ArgumentError, UserError


def test_help_lists_every_verb_and_loads_no_torch():
    code = "import sys, runpy\ntry: runpy.run_module('transfer_learning', run_name='__main__')\n"
    code += "except SystemExit as stop: assert not stop.code and 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    for name, verb in verbs().items():
        assert f"{name} " in found.stdout and verb.__doc__.splitlines()[0].rstrip(".")[:30] in found.stdout


@pytest.mark.parametrize("name", verbs())
def test_each_verb_explains_itself_with_two_examples_that_can_be_parsed(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    examples = [line.strip() for line in shown.partition("examples:")[2].splitlines() if line.strip()]
    assert len(examples) == 2
    for example in examples:
        program, *arguments = example.replace("'", "").split()
        assert program == PROGRAM and arguments[0] == name
        parser().parse_args(arguments)


@pytest.mark.parametrize(
    "typed",
    [
        ["predict", "~/run", "~/other run", "~/photos/**/*.jpg", "--out=~/table.csv", "--explain=~/maps"],
        ["evaluate", "~/run", "~/photos", "--out=~/results"],
        ["export", "~/run", "--verify=~/photos", "--out=~/model.onnx"],
        ["audit", "~/run", "--out=~/audit"],
        ["report", "~/sweeps", "~/run", "--out=~/page.html"],
        ["demo", "~/run"],
        ["cache", "--folder=~/cache"],
    ],
)
def test_paths_may_begin_with_a_tilde(typed, monkeypatch):
    """A shell does not replace it in quotes and after =."""
    monkeypatch.setenv("HOME", "/home/me")
    expected = [each.replace("~", "/home/me") for each in typed]
    assert vars(parser().parse_args(typed)) == vars(parser().parse_args(expected))
    assert parser().parse_args(["demo", "~nobody-here/run"]).run_path == "~nobody-here/run"


def test_unknown_verbs_and_options_are_refused(capsys):
    for arguments in (["train"], ["predict", "--colour"], []):
        with pytest.raises(SystemExit) as stopped:
            parser().parse_args(arguments)
        assert stopped.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "RUN", ""],
        ["export", "RUN", "--verify", ""],
        ["predict", "RUN", "x y.png", "--explain", ""],
        ["cache", "--remove", ""],
        ["audit", "RUN", "--out="],
        ["report", ""],
    ],
)
def test_empty_arguments_are_refused(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code.startswith(f"{PROGRAM}: {shlex.join(arguments)}: the last argument is empty; expected")


def test_tracebacks_of_errors_that_a_user_can_correct_are_shown_only_if_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFER_LEARNING_TRACEBACKS", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    arguments = ["cache", "--folder", str(tmp_path / "nowhere")]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code.startswith(f"{PROGRAM}: {tmp_path}/nowhere: no such folder")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError):
        main(arguments)


@pytest.mark.parametrize(
    "typed, message",
    [
        (["demo", "RUN", "--accelerator", "gpu"], "--accelerator gpu: too old."),
        (["demo", "RUN"], "--accelerator auto: too old."),
        (["audit", "RUN"], "accelerator='cuda': too old."),  # no such option was given
        (["cache"], "accelerator='cuda': too old."),
    ],
)
def test_an_argument_is_called_as_the_option_that_set_it(monkeypatch, typed, message):
    def run(options):
        raise ArgumentError("accelerator", "cuda", "too old.")

    monkeypatch.setattr(verbs()[typed[0]], "run", run)
    with pytest.raises(SystemExit) as stopped:
        main(typed)
    assert stopped.value.code == f"{PROGRAM}: {message}"


def test_a_full_disk_behind_standard_output_is_named(monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verbs()["cache"], "run", full)
    with pytest.raises(SystemExit) as stopped:
        main(["cache"])
    assert stopped.value.code.startswith(f"{PROGRAM}: standard output: No space left on device. ")


def test_a_package_that_was_installed_as_a_copy_asks_for_an_editable_one(tmp_path):
    shutil.copytree(PROJECT / "src" / "transfer_learning", tmp_path / "lib" / "transfer_learning")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "lib")}
    command = [sys.executable, "train.py"]
    result = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert "type `pip install -e .` (with -e) in the project's folder" in result.stderr


@pytest.mark.parametrize("arguments", [["cache"], ["audit", "data=cartoons"]])
def test_verbs_that_need_the_projects_folder_say_so_too(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr("transfer_learning.cli.project.PROJECT", tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert "type `pip install -e .` (with -e) in the project's folder" in str(stopped.value.code)
