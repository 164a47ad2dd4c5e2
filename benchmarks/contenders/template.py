"""What templates recommend: `ImageFolder`, v2 transforms for each image, a `DataLoader` with workers."""

import os
from pathlib import Path

from turns import turn, turn_each_epoch

from contenders.inputs import composed, files


def train(overrides: list[str], folder: str, precision: str = "32-true") -> None:
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
    quiet = dict(enable_progress_bar=False, enable_model_summary=False)
    trainer = pl.Trainer(max_epochs=-1, devices=1, precision=precision, callbacks=[turn_each_epoch()], **quiet)
    loaders = [
        DataLoader(images[split], size, shuffle=split == "train", num_workers=workers) for split in ("train", "val")
    ]
    trainer.fit(Module(), *loaders)


def decode(originals: str, folder: str) -> None:
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
