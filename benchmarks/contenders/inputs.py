"""The images and the config that the contenders share."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def composed(overrides: list[str]):
    """The config that `train.py` would get."""
    from hydra import compose, initialize_config_dir

    from transfer_learning.cli import resolvers  # noqa: F401  registers the functions of the config

    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return compose("config", overrides)


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
    path = Path(folder) / f"arrays-{len(data.splits['train'])}.npz"
    found = {"batch_size": np.array(data.batch_size)}
    for split in ("train", "val"):
        rows = data.splits[split]
        found |= {f"x_{split}": data.pixels[rows], f"y_{split}": data.labels[rows]}
    np.savez(path, **found)
    return str(path)


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


def photographs(folder: str) -> list[Path]:
    found = sorted(Path(folder).rglob("*.jpg"))
    return found or sys.exit(f"--originals {folder}: no .jpg files there")
