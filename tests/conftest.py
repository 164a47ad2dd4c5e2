"""What several tests share: small folders of images, small data, the photographs where they are."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import train
from transfer_learning.cli import shell
from transfer_learning.data.augmentation import Step
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.images import Source
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.splits import PerClass
from transfer_learning.engine.classifier import Classifier
from transfer_learning.models.cnn import CNN
from transfer_learning.models.network import Network

PROJECT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = PROJECT.parent / "shared" / "dogs-vs-cats"
MAKE_FIELD_CASES = PROJECT.parent / "shared" / "field-cases" / "make.py"
VGG16_FILE = PROJECT.parent / "shared" / "weights" / "vgg16_features-imagenet.pth"

# Environment variables of the developer that change what the program prints or uses.
for name in ("HYDRA_FULL_ERROR", "TRANSFER_LEARNING_TRACEBACKS", "COLUMNS", "VGG16_WEIGHTS"):
    os.environ.pop(name, None)
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
needs_posix_signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
needs_linux_names = pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that accepts any bytes")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in the background of a script; processes of tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def photographs() -> Path:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"needs the photographs of Dogs vs Cats in {PHOTOGRAPHS}")
    return PHOTOGRAPHS


@pytest.fixture
def vgg16_file() -> Path:
    if not VGG16_FILE.is_file():
        pytest.skip(f"needs VGG16's ImageNet weights in {VGG16_FILE}")
    return VGG16_FILE


@pytest.fixture(scope="session")
def field_cases(tmp_path_factory) -> Path:
    """Small folders of kinds that people reported trouble with."""
    if not MAKE_FIELD_CASES.is_file():
        pytest.skip(f"needs {MAKE_FIELD_CASES}")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKE_FIELD_CASES), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def write_image():
    """write_image(path, seed): a small image whose bytes follow from the seed."""

    def write(path: Path, seed: int, size: tuple[int, int] = (24, 18)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def data_module(tmp_path):
    """data_module(source, per_class, **settings): set up; the settings are those of `Preprocessing`, the split's `seed`
    and the module's own.
    """

    def make(source: Source, per_class: tuple, augmentation: Step | None = None, **settings) -> ImageDataModule:
        names = ("image_size", "interpolation", "resize", "depth")
        preprocessing = {key: settings.pop(key) for key in names if key in settings}
        split = PerClass(*per_class, seed=settings.pop("seed", 0))
        settings = {"cache_dir": tmp_path / "cache"} | settings
        data = ImageDataModule(source, split, Preprocessing(**preprocessing), augmentation, **settings)
        data.setup()
        return data

    return make


@pytest.fixture
def small_data(data_module):
    """small_data(**settings): 24 + 10 + 10 cartoons at 32 x 32, set up."""

    def make(per_class=(12, 5, 5), **settings) -> ImageDataModule:
        return data_module(Cartoons(*per_class), per_class, **dict(image_size=32, batch_size=8) | settings)

    return make


@pytest.fixture
def classifier():
    """classifier(network, image_size, **settings): a Classifier of cats and dogs."""

    def make(network: Network, image_size: int = 32, **settings) -> Classifier:
        return Classifier(network, ("cat", "dog"), Preprocessing(image_size), **settings)

    return make


@pytest.fixture
def small_model(classifier):
    """small_model(**arguments): a CNN for the small data, trained by SGD."""

    def make(learning_rate: float = 0.01, dropout: float = 0.0, **settings) -> Classifier:
        torch.manual_seed(0)
        network = CNN(num_classes=2, image_size=32, channels=[4, 8], dense=[16], dropout=dropout)
        return classifier(network, optimizer=lambda groups: torch.optim.SGD(groups, learning_rate), **settings)

    return make


@pytest.fixture
def quiet_trainer():
    """quiet_trainer(**settings): a Trainer on the CPU that shows nothing and, unless told, writes nothing."""

    def make(**settings) -> pl.Trainer:
        quiet = dict(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        return pl.Trainer(accelerator="cpu", **quiet | settings)

    return make


@pytest.fixture
def next_second():
    """next_second() waits until it has begun. TensorBoard reads event files by name, and those of a second by process:
    a resumed run that began in the second of the killed one could be read before it, and then be dropped.
    """
    return lambda: time.sleep(1 - time.time() % 1)


@pytest.fixture
def in_process(tmp_path, monkeypatch, capfd):
    """in_process(*arguments) -> (exit code, output) of `python train.py ...`, without starting a process."""
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")  # Hydra looks for conf/ beside train.py
    # Hydra composes the config once more to look for `hydra.mode`, which nothing here sets; None is what it finds.
    monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)
    # In a new process Hydra configures logging before Lightning is imported, which then propagates.
    monkeypatch.setattr(logging.getLogger("pytorch_lightning"), "propagate", True)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [train.__file__, *arguments])
        handlers, level, terminate = logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            shell.call(train.main)
        except SystemExit as error:
            code = error.code
        finally:
            logging.root.handlers, logging.root.level = handlers, level
            signal.signal(signal.SIGTERM, terminate)
        output = "".join(capfd.readouterr())
        # Python prints a text that is passed to sys.exit, and exits with 1.
        return (code, output) if isinstance(code, int) else (1, f"{output}{code}\n")

    return call


@pytest.fixture(autouse=True, scope="session")
def fixed_threads():
    """A fixed number, so that results repeat, also in processes that tests start; 1 if xdist workers share cores."""
    threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(autouse=True, scope="session")
def imports_are_kept():
    """Each run ends with a garbage collection. It takes longer than the rest of an error if it looks at all imports."""
    gc.collect()
    gc.freeze()
