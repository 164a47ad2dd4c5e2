"""What gpu.py measures: the five systems in full, and rows of epoch.py. Of this file, only `decode` loads torch."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from contenders.inputs import composed
from gpu_steps import PROJECT, Settings

SHORT = ["data.image_size=48", "data.train_per_class=40", "data.val_per_class=10", "data.test_per_class=10"]
# Variants of epoch.py that are not other people's code.
VARIANTS = ["project", "project, no checkpoints", "project, not augmented", "bare", "limit"]
MEASURED = ("epochs", "seconds", "seconds_features", "seconds_per_epoch", "seconds_to_first_step", "val/acc_best")
MEASURED += ("test/acc", "precision", "device")


def arguments(settings: Settings, system: str) -> list[str]:
    """Those of train.py for one of the five systems on the user's images and weights, else drawings and random ones."""
    given = [each for each in settings.overrides if "vgg16" in system or not each.startswith("model.")]
    data = [] if any(each.startswith("data.root=") for each in given) else ["data=cartoons"]
    is_random = "vgg16" in system and not any(each.startswith("model.weights=") for each in given)
    trainer = {"cuda": "gpu"}.get(settings.device, settings.device)
    small = [*SHORT, "trainer.max_epochs=4"] if settings.short else []
    weights = ["model.weights=null"] if is_random else []
    places = [f"data.cache_dir={settings.cache}", f"hydra.run.dir={settings.folder}/run"]
    return [f"system={system}", f"trainer={trainer}", *data, *weights, *small, *places, *given]


def decode(settings: Settings) -> dict:
    """The images of the five systems, decoded or drawn into the cache."""
    from transfer_learning.cli.build import build_data

    data = build_data(composed([each for each in arguments(settings, "basic_cnn") if not each.startswith("hydra.")]))
    start = time.perf_counter()
    data.setup()
    return {"images": len(data.readable), "seconds": round(time.perf_counter() - start, 2)}


def system(settings: Settings, name: str) -> dict:
    """One of the five systems with its default precision and all of its epochs; a killed attempt is resumed."""
    subprocess.run([sys.executable, str(PROJECT / "train.py"), *arguments(settings, name)], check=True)
    metrics = json.loads(Path(settings.folder, "run", "metrics.json").read_text(encoding="utf-8"))
    return {key: metrics[key] for key in MEASURED}


def epoch_row(settings: Settings, row: str) -> dict:
    """A row of epoch.py: the medians of its variants, seconds per epoch, without those of other libraries."""
    file = Path(settings.folder, "epoch.json")
    given = [f"trainer={'cpu' if settings.device == 'cpu' else 'gpu'}", *(SHORT if settings.short else [])]
    options = ["--rounds", "1" if settings.short else "5", "--rows", row, "--json", str(file)]
    options += ["--variants", *(["project", "bare"] if settings.short else VARIANTS)]
    script = str(PROJECT / "benchmarks" / "epoch.py")
    subprocess.run([sys.executable, script, *options, *given, *settings.overrides], check=True)
    variants = json.loads(file.read_text(encoding="utf-8"))["rows"][row]
    return {variant: median(seconds) for variant, seconds in variants.items()} | {"all seconds": variants}
