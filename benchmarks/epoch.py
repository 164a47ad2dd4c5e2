"""Seconds per epoch, validation included: this project, plain PyTorch, a common template and Keras, measured in turn.

python benchmarks/epoch.py [--rounds 5] [--rows basic regularised head finetuned vgg16 settings decode]
    [--batch-size 30] [--originals FOLDER] [data.root=FOLDER] [model.weights=FOLDER] [other overrides of train.py]

Variants:
    project   `train.py`, from the start of one epoch to the start of the next, with validation, metrics, checkpoints
              and TensorBoard
    bare      a loop in plain PyTorch with the same tensors, precision, process settings and optimizer
    limit     the same steps on one batch that is ready on the device, without augmentation
    template  what templates recommend: `ImageFolder`, v2 transforms for each image, a `DataLoader` with workers and
              Lightning's defaults
    Keras     the tutorial's code, if tensorflow-cpu is installed

Rows:
    basic, regularised, head, vgg16   the tutorial's models; `head` trains on stored features, `vgg16` on augmented
              images
    finetuned the last block and the head of EfficientNet-Lite2 on stored features, and end to end in the bare loop
    settings  the bare loop of the basic CNN, each time without one of its settings, or compiled
    decode    decoding the photographs of --originals

Each variant is a process of its own that waits for its turn. The first round warms up and is not reported. Without
`data.root` the images are drawings, and without `model.weights`, a folder with a file for each backbone, weights are
random. `vgg16` and `finetuned` use a fifth of the images. In `vgg16` the project validates on stored features, and the
bare loops do not validate. Overrides of the model, the optimizer or the image size change only the first three variants
and `bare, end to end`.
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

PROJECT = Path(__file__).resolve().parents[1]
FEWER = ["data.train_per_class=300", "data.val_per_class=100"]
MODELS = {  # row: overrides, of which the first names the model
    "basic": ["model=basic_cnn"],
    "regularised": ["model=regularised_cnn", "data.augment=true"],
    "head": ["model=vgg16_frozen"],
    "finetuned": [
        "model=pretrained",
        "model.backbone=timm/tf_efficientnet_lite2",
        "model.unfreeze=block5",
        "model.unfreeze_at_epoch=0",
        *FEWER,
    ],
    "vgg16": ["model=vgg16_frozen", "data.augment=true", *FEWER],
}
pipe = None  # to the parent, in the process of a variant


def turn() -> None:
    """Ends this process's turn, and returns when its next one begins."""
    pipe.send("done")
    if pipe.recv() != "go":
        os._exit(0)


def project(overrides: list[str], folder: str) -> None:
    import train

    sys.argv = [
        "train.py",
        f"--config-path={PROJECT}/conf",
        *overrides,
        "+callbacks.turns._target_=__main__.turns",
        "trainer.max_epochs=100000",
        f"hydra.run.dir={folder}/run-{os.getpid()}",
    ]
    train.main()


def turns():
    """A callback that gives each epoch a turn."""
    import pytorch_lightning as pl

    class Turns(pl.Callback):
        def on_train_epoch_start(self, trainer, model) -> None:
            turn()

    return Turns()


def composed(overrides: list[str]):
    """The config that `train.py` would get."""
    from hydra import compose, initialize_config_dir

    from transfer_learning.cli import resolvers  # noqa: F401  registers the functions of the config

    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return compose("config", overrides)


def bare(
    overrides: list[str],
    folder: str,
    stored: bool = False,
    fixed: bool = False,
    convolutions: bool = False,
    kept_memory: bool = True,
    channels_last: bool = True,
    optimizer: str = "",
    precision: str = "",
    compiled: bool = False,
) -> None:
    """The same training in plain PyTorch.

    `stored`: on stored features. `fixed`: always the same batch. `convolutions`: only the frozen part.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    from transfer_learning.cli.build import build, build_data
    from transfer_learning.data.batch import features_from_rows
    from transfer_learning.utilities import hardware

    torch.set_flush_denormal(True)
    if kept_memory:
        hardware.configure_process()
    torch.manual_seed(0)
    cfg = composed([*overrides, *([f"optimizer._target_={optimizer}"] if optimizer else [])])
    data = build_data(cfg)
    data.setup()
    network = build(cfg, "model", num_classes=2, image_size=data.preprocessing.image_size)
    accelerator, precision = cfg.trainer.accelerator, precision or cfg.trainer.precision
    device = torch.device("cuda" if torch.cuda.is_available() and accelerator != "cpu" else "cpu")
    precision = hardware.native_precision(accelerator) if precision == "auto" else precision
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)
    if compiled:
        network.compile()
    if stored:
        store_features(data, network, precision)
    splits = {}
    for split in ("train", "val"):
        rows = data.splits[split]
        if stored:
            features = data.features[split]
            x = features_from_rows(torch.from_numpy(np.array(features.array[features.rows[0]])))
        else:
            x = torch.from_numpy(np.array(data.pixels[rows]))
        splits[split] = x.to(device), torch.from_numpy(data.labels[rows]).to(device).float()
    optimizer = build(cfg, "optimizer")([p for p in network.parameters() if p.requires_grad])

    def prepared(split: str, positions, parameters=None):
        x, y = splits[split][0][positions], splits[split][1][positions]
        if not stored:
            x = x.permute(0, 3, 1, 2).float().div_(255)
            if parameters is not None:
                x, y = data.augmentation.apply(x, y, [step[positions] for step in parameters])
            x = x.contiguous(memory_format=layout)
        return x, y

    def forward(x):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            return (network.trainable(x) if stored else network(x))[:, 0].float()

    size, epoch = data.batch_size, 0
    ready = {split: prepared(split, torch.arange(min(size, len(splits[split][1])))) for split in splits}

    def batch(split: str, positions, parameters=None):
        return [each[: len(positions)] for each in ready[split]] if fixed else prepared(split, positions, parameters)

    while True:
        turn()
        network.train()
        order = torch.randperm(len(splits["train"][1]), generator=torch.Generator().manual_seed(epoch)).to(device)
        parameters = None
        if data.augment and not fixed:
            parameters = [torch.from_numpy(step).to(device) for step in data.augmentation_parameters(epoch)]
        for positions in order.split(size):
            x, y = batch("train", positions, parameters)
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
        # The project validates `vgg16` on stored features, so its frozen part is not measured there.
        validated = stored or "vgg16" not in overrides[0]
        with torch.no_grad():
            for positions in torch.arange(len(splits["val"][1]), device=device).split(size) if validated else []:
                x, y = batch("val", positions)
                correct += ((forward(x) > 0) == y).sum()
        correct.item()  # waits for the device
        epoch += 1


def store_features(data, network, precision: str) -> None:
    """Stores the features in the cache, under the key that the project uses too."""
    import pytorch_lightning as pl

    from transfer_learning.engine.classifier import Classifier
    from transfer_learning.engine.training import frozen_part

    trainer = pl.Trainer(accelerator="auto", devices=1, precision=precision, logger=False, enable_checkpointing=False)
    data.store_features(frozen_part(Classifier(network, data.class_names, data.preprocessing), trainer))


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
        split: ImageFolder(
            f"{files(overrides, folder)}/{split}",
            v2.Compose(start + (change if augmented and split == "train" else []) + end),
        )
        for split in ("train", "val")
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

        def step(self, batch, split, accuracy):
            x, y = batch
            logits = self.net(self.frozen(x))[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, y.float())
            accuracy(logits, y)
            self.log(f"{split}/loss", loss, on_step=split == "train", on_epoch=True)
            self.log(f"{split}/acc", accuracy, on_step=False, on_epoch=True)
            return loss

        def training_step(self, batch, index):
            return self.step(batch, "train", self.train_acc)

        def validation_step(self, batch, index):
            self.step(batch, "val", self.val_acc)

        def configure_optimizers(self):
            return torch.optim.RMSprop(self.net.parameters(), 1e-4, alpha=0.9, eps=1e-7)

    os.chdir(folder)  # Lightning writes its logs and checkpoints here
    trainer = pl.Trainer(
        max_epochs=-1, devices=1, callbacks=[turns()], enable_progress_bar=False, enable_model_summary=False
    )
    loaders = [
        DataLoader(images[split], size, shuffle=split == "train", num_workers=workers) for split in ("train", "val")
    ]
    trainer.fit(Module(), *loaders)


def keras(overrides: list[str], folder: str, arrays: str) -> None:
    """The tutorial's layers and settings, in Keras 3. Keras's own generator augments, image by image."""
    import keras  # TensorFlow and torch do not work in one process
    import numpy as np
    from keras import layers
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    saved = np.load(arrays)
    x = {split: saved[f"x_{split}"].astype(np.float32) / 255 for split in ("train", "val")}
    y = {split: saved[f"y_{split}"].astype(np.float32) for split in ("train", "val")}
    vgg, augmented, basic = "vgg16" in overrides[0], "data.augment=true" in overrides, "basic" in overrides[0]
    frozen = []
    if vgg and augmented:
        frozen = [keras.applications.VGG16(include_top=False, weights=None, input_shape=(150, 150, 3))]
        frozen[0].trainable = False
    elif vgg:  # random numbers instead of features: the time does not depend on them
        x = {split: np.random.rand(len(y[split]), 4, 4, 512).astype(np.float32) for split in x}
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


def built_data(overrides: list[str]):
    """The data module of `train.py`, set up."""
    from transfer_learning.cli.build import build_data

    data = build_data(composed(overrides))
    data.setup()
    return data


def arrays(overrides: list[str], folder: str) -> str:
    """Writes the training and validation images as arrays to a file, for a process without torch."""
    import numpy as np

    data = built_data(overrides)
    found = {"batch_size": np.array(data.batch_size)}
    for split in ("train", "val"):
        rows = data.splits[split]
        found |= {f"x_{split}": data.pixels[rows], f"y_{split}": data.labels[rows]}
    np.savez(Path(folder) / "arrays.npz", **found)
    return str(Path(folder) / "arrays.npz")


def files(overrides: list[str], folder: str) -> Path:
    """Writes the training and validation images as JPEG files of 200 x 200 pixels in class folders, once."""
    data = built_data(overrides)
    root = Path(folder) / f"files-{len(data.splits['train'])}"
    if not root.exists():
        for split in ("train", "val"):
            for row in data.splits[split]:
                path = root / split / data.class_names[data.labels[row]] / f"{row}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                with data.images.read(row) as image:
                    image.convert("RGB").resize((200, 200)).save(path, quality=90)
    return root


def decode_project(originals: str, folder: str) -> None:
    from transfer_learning.data.digests import FileDigests
    from transfer_learning.data.preprocessing import Preprocessing, decode
    from transfer_learning.data.sources.folder import Folder

    images = Folder(originals).list_images(FileDigests())
    while True:
        turn()
        decode(images, Preprocessing(150), range(len(images.names)))


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


def variants(row: str, given: list[str], folder: str) -> dict[str, tuple]:
    """Name -> (function, its first argument, its other arguments)."""
    has_keras = importlib.util.find_spec("tensorflow") is not None
    if row == "decode":
        each = {"project": decode_project, "bare, one thread": decode_bare, "template": decode_template}
        each |= {"Keras": decode_keras} if has_keras else {}
        return {name: (function, given, {}) for name, function in each.items()}
    overrides = [*MODELS["basic" if row == "settings" else row], *given]
    if row == "settings":
        rmsprop = "torch.optim.RMSprop"
        without = {
            "default malloc": dict(kept_memory=False),
            "torch's RMSprop": dict(optimizer=rmsprop),
            "float32": dict(precision="32-true"),
            "contiguous": dict(channels_last=False),
            "all of these": dict(kept_memory=False, optimizer=rmsprop, precision="32-true", channels_last=False),
            "compiled": dict(compiled=True),
        }
        return {
            "bare": (bare, overrides, {}),
            **{name: (bare, overrides, arguments) for name, arguments in without.items()},
        }
    stored = row in ("head", "finetuned")
    found = {
        "project": (project, overrides, {}),
        "bare": (bare, overrides, dict(stored=stored)),
        "limit": (bare, overrides, dict(stored=stored, fixed=True)),
    }
    if row == "finetuned":
        found["bare, end to end"] = (bare, overrides, {})
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
    if row in ("basic", "regularised", "vgg16"):
        found["template"] = (template, overrides, {})
    if has_keras and row != "finetuned":
        found["Keras"] = (keras, overrides, dict(arrays=arrays(overrides, folder)))
    return found


def run_variant(function, first, others: dict, folder: str, end) -> None:
    """The main function of a variant's process."""
    global pipe
    pipe = end
    null = os.open(f"{folder}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(null, 1)
    os.dup2(null, 2)
    multiprocessing.set_start_method(None, force=True)  # a DataLoader's workers are started as by default, not spawned
    sys.path[:0] = [str(PROJECT)]
    function(first, folder, **others)


def measured(found: dict[str, tuple], rounds: int, folder: str) -> dict[str, list[float]]:
    """Name -> seconds of each turn, without the first."""
    context, running, ends, seconds = multiprocessing.get_context("spawn"), {}, {}, {}
    for name, (function, first, others) in found.items():
        here, there = context.Pipe()
        running[name] = here, context.Process(target=run_variant, args=(function, first, others, folder, there))
        ends[name], seconds[name] = there, []
    try:
        for name, (here, process) in running.items():  # one after the other: the first fills the cache
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
    rows = [*MODELS, "settings", "decode"]
    parser.add_argument("--rows", nargs="+", default=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument(
        "--originals", help="photographs of any size, for the row `decode`, which is left out without it"
    )
    arguments, given = parser.parse_known_args()
    given += [each for each in arguments.rows if "=" in each]  # overrides that follow the rows
    arguments.rows = [each for each in arguments.rows if "=" not in each]
    if unknown := set(arguments.rows) - set(rows):
        parser.error(f"--rows: {', '.join(sorted(unknown))} is none of {', '.join(rows)}")
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
            scratch = row in ("basic", "regularised", "settings")
            own = [each for each in given if not (scratch and each.startswith("model."))]
            found = variants(row, arguments.originals if row == "decode" else own, folder)
            seconds = measured(found, arguments.rounds, folder)
            rounds = f"median (range) of {arguments.rounds} rounds"
            print(f"\n{row}: seconds, {rounds}; the first variant's median / this one's")
            first = statistics.median(next(iter(seconds.values())))
            for name, values in seconds.items():
                median, spread = statistics.median(values), f"({min(values):.2f} to {max(values):.2f})"
                print(f"  {name:30s} {median:7.2f}  {spread}  {first / median:6.2f}", flush=True)


if __name__ == "__main__":
    main()
