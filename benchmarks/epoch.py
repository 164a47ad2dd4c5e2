"""Seconds of an epoch, validation included: this project beside what it could be and what it replaces, in turn, in one run.

python tests/benchmarks/epoch.py [--rounds 5] [--rows basic regularised head vgg16 settings decode] [--batch-size 30]
    [--originals FOLDER] [data.root=FOLDER] [model.weights=FILE] [other overrides of train.py]

project   `train.py` itself, from one epoch's start to the next: validation, metrics, checkpoints and TensorBoard are in it
bare      a loop in plain PyTorch on the same tensors, in the same precision and process settings, with the same optimiser
limit     the same steps on one batch that lies ready, not augmented
template  what templates teach: `ImageFolder`, v2 transforms for each image, a `DataLoader` with workers, Lightning's defaults
Keras     the tutorial's code, where tensorflow-cpu is installed

Each contender is a process of its own that waits for its turn. The first turn warms up and is left out. Without `data.root` the images are
drawn. `settings` takes one setting away from the bare loop of the basic CNN at a time, or compiles it. `vgg16` has a fifth of the images;
there the project validates on stored outputs, and the bare loops not at all. Overrides of model, optimiser or image size reach only the
first three.
"""

import argparse
import importlib.util
import logging
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
MODELS = {  # row: overrides, of which the first names the model
    "basic": ["model=basic_cnn"],
    "regularised": ["model=regularised_cnn", "data.augment=true"],
    "head": ["model=vgg16_frozen"],
    "vgg16": ["model=vgg16_frozen", "data.augment=true", "data.train_per_class=300", "data.val_per_class=100"],
}
pipe = None  # to the parent, in a contender's process


def turn() -> None:
    """Ends a contender's turn, and returns when its next one begins."""
    pipe.send("done")
    if pipe.recv() != "go":
        os._exit(0)


def project(overrides: list[str], folder: str) -> None:
    import train

    turns = "+callbacks.turns._target_=__main__.turns"
    sys.argv = [
        "train.py",
        f"--config-path={PROJECT}/conf",
        *overrides,
        turns,
        "trainer.max_epochs=100000",
        f"hydra.run.dir={folder}/run-{os.getpid()}",
    ]
    train.main()


def turns():
    import pytorch_lightning as pl

    class Turns(pl.Callback):
        def on_train_epoch_start(self, trainer, model) -> None:
            turn()

    return Turns()


def composed(overrides: list[str]):
    from hydra import compose, initialize_config_dir

    from transfer_learning import resolvers  # noqa: F401  registers them

    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return compose("config", overrides)


def bare(
    overrides: list[str],
    folder: str,
    fixed: bool = False,
    convolutions: bool = False,
    kept_memory: bool = True,
    channels_last: bool = True,
    optimizer: str = "",
    precision: str = "",
    compiled: bool = False,
) -> None:
    """The same training in plain PyTorch; `fixed` on one batch, `convolutions` the frozen part of it alone."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from hydra.utils import instantiate

    from transfer_learning import hardware
    from transfer_learning.data.augment import augment
    from transfer_learning.data.batch import from_rows

    torch.set_flush_denormal(True)
    if kept_memory:
        hardware.set_up_cpu()
    torch.manual_seed(0)
    cfg = composed([*overrides, *([f"optimizer._target_={optimizer}"] if optimizer else [])])
    data = instantiate(cfg.data, _convert_="all")
    data.setup()
    network = instantiate(cfg.model, num_classes=2, image_size=data.image_size, _convert_="all")
    head = "vgg16" in overrides[0] and not data.augment
    accelerator, said = cfg.trainer.accelerator, precision or cfg.trainer.precision
    device = torch.device("cuda" if torch.cuda.is_available() and accelerator != "cpu" else "cpu")
    precision = hardware.native_precision(accelerator) if said == "auto" else said
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)
    if compiled:
        network.compile()
    if head:
        encode_once(data, network, precision)
    parts = {}
    for part in ("train", "val"):
        rows = data.parts[part]
        x = (
            from_rows(torch.from_numpy(np.array(data.encoded[part][0])))
            if head
            else torch.from_numpy(np.array(data.pixels[rows]))
        )
        parts[part] = x.to(device), torch.from_numpy(data.labels[rows]).to(device).float()
    optimizer = instantiate(cfg.optimizer)([p for p in network.parameters() if p.requires_grad])

    def prepared(part: str, positions, draws=None):
        x, y = parts[part][0][positions], parts[part][1][positions]
        if not head:
            x = x.permute(0, 3, 1, 2).float().div_(255)
            x = x if draws is None else augment(x, draws[positions])
            x = x.contiguous(memory_format=layout)
        return x, y

    def forward(x):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            return (network.trainable(x) if head else network(x))[:, 0].float()

    size, epoch = data.batch_size, 0
    ready = {part: prepared(part, torch.arange(min(size, len(parts[part][1])))) for part in parts}

    def batch(part: str, positions, draws=None):
        return [each[: len(positions)] for each in ready[part]] if fixed else prepared(part, positions, draws)

    while True:
        turn()
        network.train()
        order = torch.randperm(len(parts["train"][1]), generator=torch.Generator().manual_seed(epoch)).to(device)
        draws = torch.from_numpy(data.draws(epoch)).to(device) if data.augment and not fixed else None
        for positions in order.split(size):
            x, y = batch("train", positions, draws)
            if convolutions:
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    network.frozen(x)
                continue
            loss = F.binary_cross_entropy_with_logits(forward(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        correct = torch.zeros((), device=device)
        stored = (
            "vgg16" in overrides[0] and not head
        )  # whose validation images the project does not pass through the frozen part again
        with torch.no_grad():
            for positions in [] if stored else torch.arange(len(parts["val"][1]), device=device).split(size):
                x, y = batch("val", positions)
                correct += ((forward(x) > 0) == y).sum()
        correct.item()  # waits for the device
        epoch += 1


def encode_once(data, network, precision: str) -> None:
    """Stores the frozen part's outputs where the project finds them, or finds them where it stored them."""
    import pytorch_lightning as pl

    from transfer_learning.models.classifier import Classifier
    from transfer_learning.training import frozen_pass

    trainer = pl.Trainer(accelerator="auto", devices=1, precision=precision, logger=False, enable_checkpointing=False)
    key = {"frozen": network.frozen.key, "precision": precision}
    data.encode_once(frozen_pass(data, Classifier(network, data.class_names, data.image_size), trainer), key)


def template(overrides: list[str], folder: str) -> None:
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader
    from torchmetrics.classification import BinaryAccuracy
    from torchvision.datasets import ImageFolder
    from torchvision.models import vgg16
    from torchvision.transforms import v2

    augmented, vgg = "data.augment=true" in overrides, "vgg16" in overrides[0]
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if vgg else ([0.0] * 3, [1.0] * 3)
    start = [v2.ToImage(), v2.Resize((150, 150))]
    end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    change = [
        v2.RandomAffine(50, (0.2, 0.2), (0.7, 1.3), 0.2, v2.InterpolationMode.BILINEAR),
        v2.RandomHorizontalFlip(),
    ]
    images = {
        part: ImageFolder(
            f"{files(overrides, folder)}/{part}",
            v2.Compose(start + (change if augmented and part == "train" else []) + end),
        )
        for part in ("train", "val")
    }
    size, workers = composed(overrides).data.batch_size, os.cpu_count()

    def convolutions(*widths):
        layers = [[nn.Conv2d(i, o, 3), nn.ReLU(), nn.MaxPool2d(2)] for i, o in zip([3, *widths], widths)]
        return [layer for block in layers for layer in block]

    def dense(inputs, depth, p):
        layers = [[nn.Linear(i, 512), nn.ReLU(), nn.Dropout(p)] for i in [inputs, *[512] * (depth - 1)]]
        return [nn.Flatten(), *[layer for block in layers for layer in block], nn.Linear(512, 1)]

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.frozen = vgg16(weights=None).features.requires_grad_(False) if vgg else nn.Identity()
            if vgg:
                self.net = nn.Sequential(*dense(8192, 2, 0.3))
            elif "basic" in overrides[0]:
                self.net = nn.Sequential(*convolutions(16, 64, 128), *dense(36992, 1, 0.0))
            else:
                self.net = nn.Sequential(*convolutions(16, 64, 128, 128), *dense(6272, 2, 0.3))
            self.train_acc, self.val_acc = BinaryAccuracy(), BinaryAccuracy()

        def step(self, batch, part, accuracy):
            x, y = batch
            logits = self.net(self.frozen(x))[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, y.float())
            accuracy(logits, y)
            self.log(f"{part}/loss", loss, on_step=part == "train", on_epoch=True)
            self.log(f"{part}/acc", accuracy, on_step=False, on_epoch=True)
            return loss

        def training_step(self, batch, index):
            return self.step(batch, "train", self.train_acc)

        def validation_step(self, batch, index):
            self.step(batch, "val", self.val_acc)

        def configure_optimizers(self):
            return torch.optim.RMSprop(self.net.parameters(), 1e-4, alpha=0.9, eps=1e-7)

    os.chdir(folder)  # Lightning's own folder of logs and checkpoints
    trainer = pl.Trainer(
        max_epochs=-1, devices=1, callbacks=[turns()], enable_progress_bar=False, enable_model_summary=False
    )
    loaders = [
        DataLoader(images[part], size, shuffle=part == "train", num_workers=workers) for part in ("train", "val")
    ]
    trainer.fit(Module(), *loaders)


def keras(overrides: list[str], folder: str, arrays: str) -> None:
    """The tutorial's layers and settings, in Keras 3; its augmentation is Keras's own generator, image by image."""
    import keras  # never beside torch: TensorFlow and torch do not bear each other in one process
    import numpy as np
    from keras import layers
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    saved = np.load(arrays)
    x = {part: saved[f"x_{part}"].astype(np.float32) / 255 for part in ("train", "val")}
    y = {part: saved[f"y_{part}"].astype(np.float32) for part in ("train", "val")}
    vgg, augmented, basic = "vgg16" in overrides[0], "data.augment=true" in overrides, "basic" in overrides[0]
    frozen = []
    if vgg and augmented:
        frozen = [keras.applications.VGG16(include_top=False, weights=None, input_shape=(150, 150, 3))]
        frozen[0].trainable = False
    elif vgg:  # numbers in the place of features: they do not decide the time
        x = {part: np.random.rand(len(y[part]), 4, 4, 512).astype(np.float32) for part in x}
    widths = [] if vgg else (16, 64, 128) if basic else (16, 64, 128, 128)
    maps = [layer for width in widths for layer in (layers.Conv2D(width, 3, activation="relu"), layers.MaxPooling2D(2))]
    dense = [
        [layers.Dense(512, activation="relu")] + ([] if basic else [layers.Dropout(0.3)])
        for _ in range(1 if basic else 2)
    ]
    head = [layers.Flatten(), *[layer for each in dense for layer in each], layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input(x["train"].shape[1:]), *frozen, *maps, *head])
    model.compile(keras.optimizers.RMSprop(1e-4, rho=0.9, epsilon=1e-7), "binary_crossentropy", metrics=["accuracy"])
    size = int(saved["batch_size"])
    batches = dict(x=x["train"], y=y["train"], batch_size=size)
    if augmented:
        change = dict(zoom_range=0.3, rotation_range=50, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2)
        generator = ImageDataGenerator(horizontal_flip=True, fill_mode="nearest", **change)
        batches = dict(x=generator.flow(x["train"], y["train"], batch_size=size))
    while True:
        turn()
        model.fit(**batches, validation_data=(x["val"], y["val"]), validation_batch_size=size, epochs=1, verbose=0)


def arrays(overrides: list[str], folder: str) -> str:
    """The training and validation images as arrays in a file, for a process without torch."""
    import numpy as np
    from hydra.utils import instantiate

    data = instantiate(composed(overrides).data, _convert_="all")
    data.setup()
    found = {"batch_size": np.array(data.batch_size)}
    for part in ("train", "val"):
        found |= {f"x_{part}": data.pixels[data.parts[part]], f"y_{part}": data.labels[data.parts[part]]}
    np.savez(Path(folder) / "arrays.npz", **found)
    return str(Path(folder) / "arrays.npz")


def files(overrides: list[str], folder: str) -> Path:
    """The training and validation images as JPEG files of 200 x 200 in class folders."""
    from hydra.utils import instantiate

    data = instantiate(composed(overrides).data, _convert_="all")
    data.setup()
    root = Path(folder) / f"files-{len(data.parts['train'])}"
    if not root.exists():
        images = data.find()
        for part in ("train", "val"):
            for row in data.parts[part]:
                path = root / part / data.class_names[data.labels[row]] / f"{row}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                with images.read(row) as image:
                    image.convert("RGB").resize((200, 200)).save(path, quality=90)
    return root


def decode_project(originals: str, folder: str) -> None:
    from transfer_learning.data.decode import decode
    from transfer_learning.data.files import find_images

    images = find_images(originals)
    while True:
        turn()
        decode(images, 150, "bilinear", range(len(images.names)))


def decode_bare(originals: str, folder: str) -> None:
    import numpy as np
    from PIL import Image

    while True:
        turn()
        for path in sorted(Path(originals).rglob("*.jpg")):
            np.asarray(Image.open(path).convert("RGB").resize((150, 150), Image.Resampling.BILINEAR))


def decode_template(originals: str, folder: str) -> None:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    root = Path(folder) / "originals" / "all"
    root.parent.mkdir()
    root.symlink_to(Path(originals).resolve())
    images = ImageFolder(root.parent, v2.Compose([v2.ToImage(), v2.Resize((150, 150))]))
    while True:
        turn()
        for _ in DataLoader(images, 30, num_workers=os.cpu_count()):
            pass


def decode_keras(originals: str, folder: str) -> None:
    from keras.utils import img_to_array, load_img

    while True:
        turn()
        for path in sorted(Path(originals).rglob("*.jpg")):
            img_to_array(load_img(path, target_size=(150, 150)))


def contenders(row: str, given: list[str], folder: str) -> dict[str, tuple]:
    """Name -> (function, its first argument, its other arguments)."""
    has_keras = importlib.util.find_spec("tensorflow") is not None
    if row == "decode":
        each = {"project": decode_project, "bare, one thread": decode_bare, "template": decode_template}
        return {
            name: (function, given, {})
            for name, function in (each | ({"Keras": decode_keras} if has_keras else {})).items()
        }
    overrides = [*MODELS["basic" if row == "settings" else row], *given]
    if row == "settings":
        rmsprop = "torch.optim.RMSprop"
        without = {
            "memory handed back": dict(kept_memory=False),
            "torch's RMSprop": dict(optimizer=rmsprop),
            "float32": dict(precision="32-true"),
            "contiguous": dict(channels_last=False),
            "none of these": dict(kept_memory=False, optimizer=rmsprop, precision="32-true", channels_last=False),
            "compiled": dict(compiled=True),
        }
        return {
            "bare": (bare, overrides, {}),
            **{name: (bare, overrides, arguments) for name, arguments in without.items()},
        }
    found = {
        "project": (project, overrides, {}),
        "bare": (bare, overrides, {}),
        "limit": (bare, overrides, dict(fixed=True)),
    }
    if row in ("basic", "head"):
        found["project, no checkpoints"] = (
            project,
            [*overrides, "~callbacks.checkpoint_best", "~callbacks.checkpoint_last"],
            {},
        )
    if row == "regularised":
        found["project, not augmented"] = (project, [*overrides, "data.augment=false"], {})
    if row == "vgg16":
        found["convolutions alone"] = (bare, overrides, dict(fixed=True, convolutions=True))
        found["project, trainer.compile=true"] = (project, [*overrides, "trainer.compile=true"], {})
    if row != "head":
        found["template"] = (template, overrides, {})
    if has_keras:
        found["Keras"] = (keras, overrides, dict(arrays=arrays(overrides, folder)))
    return found


def contend(function, first, others: dict, folder: str, end) -> None:
    global pipe
    pipe = end
    null = os.open(f"{folder}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(null, 1)
    os.dup2(null, 2)
    multiprocessing.set_start_method(
        None, force=True
    )  # this process was spawned, but need not spawn a DataLoader's workers
    sys.path[:0] = [str(PROJECT)]
    function(first, folder, **others)


def measured(found: dict[str, tuple], rounds: int, folder: str) -> dict[str, list[float]]:
    context, running, ends, seconds = multiprocessing.get_context("spawn"), {}, {}, {}
    for name, (function, first, others) in found.items():
        here, there = context.Pipe()
        running[name] = here, context.Process(target=contend, args=(function, first, others, folder, there))
        ends[name], seconds[name] = there, []
    try:
        for name, (here, process) in running.items():  # one after the other, so that what is stored is stored once
            process.start()
            ends[name].close()
            here.recv()
        for _ in range(rounds + 1):
            for name, (here, _) in running.items():
                start = time.perf_counter()
                here.send("go")
                here.recv()
                seconds[name].append(time.perf_counter() - start)
    except EOFError:
        sys.exit(f"{name} failed:\n{Path(folder, 'log.txt').read_text()[-3000:]}")
    finally:
        for _, process in running.values():
            if process.pid:
                process.kill()
                process.join()
    return {name: values[1:] for name, values in seconds.items()}


def machine() -> str:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--rows", nargs="+", choices=[*MODELS, "settings", "decode"], default=[*MODELS, "settings", "decode"]
    )
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument("--originals", help="photographs of any size to decode; without, that row is left out")
    arguments, given = parser.parse_known_args()
    print(machine())
    sys.path[:0] = [str(PROJECT)]
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        given += [f"data.batch_size={arguments.batch_size}", f"data.cache_dir={folder}/cache"]
        given += [] if any(each.startswith("data.root=") for each in given) else ["data=cartoons"]
        if not any(each.startswith("model.weights=") for each in given):
            given.append("model.weights=null")
        for row in arguments.rows:
            if row == "decode" and not arguments.originals:
                continue
            own = [each for each in given if "vgg16" in MODELS.get(row, [""])[0] or not each.startswith("model.")]
            seconds = measured(
                contenders(row, arguments.originals if row == "decode" else own, folder), arguments.rounds, folder
            )
            print(
                f"\n{row}: seconds, median (range) of {arguments.rounds} rounds; the first contender's median / this one's"
            )
            first = statistics.median(next(iter(seconds.values())))
            for name, values in seconds.items():
                median = statistics.median(values)
                print(
                    f"  {name:30s} {median:7.2f}  ({min(values):.2f} to {max(values):.2f})  {first / median:6.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
