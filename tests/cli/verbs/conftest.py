"""Fixtures that tests of the verbs share."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from transfer_learning.cli.main import main


class Output(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """The folder of a run of two epochs, which `finished` trains when it is first used."""
    return tmp_path_factory.mktemp("original") / "run"


@pytest.fixture
def photographs_folder(original, write_image) -> Path:
    """`photographs/cat` and `photographs/dog`, sixteen images each; in every class one brightness is more frequent."""
    folder = original.parent / "photographs"
    for seed in range(32):
        if not (folder / "dog" / "31.png").exists():
            write_image(folder / ("dog" if seed % 2 else "cat") / f"{seed}.png", seed, (40 + seed, 30))
    return folder


@pytest.fixture
def finished(original, photographs_folder, tmp_path, in_process) -> Path:
    """A copy of the folder of a run."""
    if not original.exists():
        settings = ["data=image_folder", f"data.root={photographs_folder}", "data.image_size=32", "data.batch_size=6"]
        settings += ["model=regularised_cnn", "model.channels=[4,8]", "model.dense=[16]", "trainer=cpu"]
        settings += ["trainer.max_epochs=2", "data.resize=pad", f"data.cache_dir={original.parent}/cache"]
        code, output = in_process(*settings, f"hydra.run.dir={original}")
        assert code == 0, output
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def verb(capfd):
    """verb(*arguments) -> exit code, stdout and stderr of `python -m transfer_learning ...`, without a new process."""

    def call(*arguments) -> Output:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        code = stopped.value.code
        # Python prints a text that is passed to sys.exit, and exits with 1.
        return Output(code or 0, out, err) if not isinstance(code, str) else Output(1, out, f"{err}{code}\n")

    return call
