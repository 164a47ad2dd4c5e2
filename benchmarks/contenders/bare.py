"""The same training as a loop in plain PyTorch."""

from turns import turn

from contenders.inputs import composed, photographs


def train(
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
    validated: bool = True,
) -> None:
    """The same tensors, precision, process settings and optimizer as in the project.

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
    precision = hardware.default_precision(accelerator) if precision == "auto" else precision
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


def decode(originals: str, folder: str) -> None:
    """In one thread."""
    import numpy as np
    from PIL import Image

    while True:
        turn()
        for path in photographs(originals):
            np.asarray(Image.open(path).convert("RGB").resize((150, 150), Image.Resampling.BILINEAR))
