"""Fixtures that tests of the verbs share."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import pytorch_lightning as pl
import torch

from transfer_learning.cli.main import main
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine.classifier import Classifier
from transfer_learning.models.cnn import CNN


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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a small run, as far as verbs read it."""
    torch.manual_seed(0)
    network = CNN(2, 32, channels=[4, 8], dense=[16], dropout=0.0)
    model = Classifier(network, ("cat", "dog"), Preprocessing(32, resize="crop"))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(model)
    model.trainer = trainer
    folder = tmp_path_factory.mktemp("runs") / "run"
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    (folder / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def run_folder(small_run, tmp_path):
    """A copy of it, which the test may change."""
    return shutil.copytree(small_run, tmp_path / "run")
