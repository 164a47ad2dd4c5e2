"""How many planted near-duplicates and wrong labels an audit finds among the first 40 of each list, and in what time.

python benchmarks/audit.py PHOTOGRAPHS WEIGHTS [--cache CACHE] [--seeds 5]

For each seed, 20 photographs of PHOTOGRAPHS (cat.1.jpg ..., in Dogs vs Cats' flat layout) get a copy in another split,
recompressed, scaled, mirrored or all of that, and 20 others get the wrong label. WEIGHTS are those of VGG16's
convolutions. Features are stored in CACHE, by default a temporary folder. All files that are made are temporary.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from PIL import Image, ImageOps

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.folder import Folder
from transfer_learning.data.splits import PerClass
from transfer_learning.engine.audit import audit
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.training import frozen_part
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.hardware import default_precision

PLANTED, FIRST, IMAGE_SIZE = 20, 40, 150
WAYS = ("recompressed", "scaled", "mirrored", "mirrored-scaled-recompressed")
OTHER = {"cat": "dog", "dog": "cat"}


def plant(photographs: list[Path], folder: Path, seed: int) -> None:
    """Links all photographs, `wrong-` where the class is wrong, and writes the copies, `copy-WAY-`."""
    chance = random.Random(seed)
    chosen = chance.sample(photographs, 2 * PLANTED)
    for path in photographs:
        is_wrong, label = path in chosen[PLANTED:], path.name[:3]
        target = folder / (OTHER[label] if is_wrong else label) / f"{'wrong-' * is_wrong}{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.resolve())
    for number, path in enumerate(chosen[:PLANTED]):
        way = WAYS[number % len(WAYS)]
        with Image.open(path) as opened:
            image = ImageOps.mirror(opened) if "mirrored" in way else opened.copy()
        if "scaled" in way:
            factor = chance.uniform(0.4, 0.8)
            image = image.resize((round(image.width * factor), round(image.height * factor)))
        quality = chance.randrange(25, 60) if "recompressed" in way else 90
        image.convert("RGB").save(folder / path.name[:3] / f"copy-{way}-{path.name}", quality=quality)


def split(images) -> dict[str, np.ndarray]:
    """60, 20 and 20 % of each class; a copy is in another split than its original."""
    names = [Path(name).name for name in images.names]
    originals = np.array([n for n, name in enumerate(names) if not name.startswith("copy-")])
    splits = {key: originals[rows] for key, rows in PerClass(0.6, 0.2, 0.2)(images.take(originals)).items()}
    where = {names[n]: key for key, rows in splits.items() for n in rows}
    for n, name in enumerate(names):
        if name.startswith("copy-"):
            key = "train" if where[name.rpartition("-")[2]] != "train" else ("val", "test")[n % 2]
            splits[key] = np.append(splits[key], n)
    return splits


def main(photographs: str, weights: str, cache: str, seeds: int) -> None:
    files = sorted(Path(photographs).rglob("*.jpg"))
    if not files:
        sys.exit(f"{photographs}: no .jpg files there")
    precision = default_precision("auto")
    trainer = pl.Trainer(devices=1, precision=precision, logger=False, enable_checkpointing=False)
    network = Pretrained(2, IMAGE_SIZE, "vgg16", weights, pool="none", layer_norm=False)
    found: dict[str, list[float]] = {"copies": [], "pairs": [], "wrong labels": [], "suspects": [], "seconds": []}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(seeds):
            folder = Path(temporary, f"photographs-{seed}")
            plant(files, folder, seed)
            preprocessing = Preprocessing(IMAGE_SIZE)
            data = ImageDataModule(Folder(folder), split, preprocessing, cache_dir=cache or temporary)
            data.setup()
            part = frozen_part(Classifier(network, data.class_names, preprocessing), trainer)
            data.store_features(part)
            start = time.perf_counter()
            result = audit(data, part)
            found["seconds"].append(time.perf_counter() - start)
            pairs, suspects = result.of("near-duplicate"), result.of("label")
            names = [Path(name).name for name in result.files]
            copies = {frozenset((name, name.rpartition("-")[2])) for name in names if name.startswith("copy-")}
            first = {frozenset((names[pair.image], names[pair.other])) for pair in pairs[:FIRST]}
            wrong = [names[each.image].startswith("wrong-") for each in suspects]
            found["copies"].append(len(copies & first))
            found["pairs"].append(len(pairs))
            found["wrong labels"].append(sum(wrong[:FIRST]))
            found["suspects"].append(len(suspects))
            print(
                f"seed {seed}: missed {sorted(map(sorted, copies - first))}; of all suspects {sum(wrong)} are planted"
            )
    print(f"{len(files)} photographs, {precision}, {PLANTED} planted of each kind, the first {FIRST} of each list")
    for name, values in found.items():
        print(f"{name:14s} mean {statistics.mean(values):.1f}  ({', '.join(f'{value:.3g}' for value in values)})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs")
    parser.add_argument("weights")
    parser.add_argument("--cache", default="")
    parser.add_argument("--seeds", type=int, default=5)
    main(**vars(parser.parse_args()))
