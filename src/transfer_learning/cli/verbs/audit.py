"""Find near-duplicates, suspect labels and unusual images, from the features of a frozen network.

Give RUN, the folder of a run, to audit its images; or, before any training, settings as train.py gets them: data=...,
model=... (vgg16_frozen). Features that are stored are not computed again. Writes audit.csv and audit.html, a page with
thumbnails, to a new folder. `train.py data.exclude=FOLDER/audit.csv` leaves out the images of the rows whose column
`exclude` you fill with x.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXAMPLES = ("outputs/runs/RUN", "data=image_folder data.root=photographs/ --out results")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_or_settings", type="path", metavar="RUN | KEY=VALUE", nargs="+", help="a run, or settings")
    parser.add_argument(
        "--out", type="path", metavar="FOLDER", help="for the results (RUN/audit; with settings, ./audit)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results in FOLDER, filled in or not")
    parser.add_argument("--top", metavar="N", type=int, default=40, help="findings of each kind on the page (40)")
    parser.add_argument("--accelerator", help="auto (a GPU if there is one), cpu, gpu or mps (as configured)")


def run(options: argparse.Namespace) -> int:
    from tabulate import tabulate

    from transfer_learning.cli.arguments import repeated_keys
    from transfer_learning.cli.files import check_new
    from transfer_learning.cli.overrides import as_override
    from transfer_learning.cli.runs import own_config
    from transfer_learning.reporting.audit import write_audit_page, write_table
    from transfer_learning.utilities.errors import ArgumentError, UserError
    from transfer_learning.utilities.files import atomic_folder
    from transfer_learning.utilities.text import printable

    given = options.run_or_settings
    if options.top < 0:
        raise ArgumentError("top", options.top, "expected 0 or more.")
    is_run = len(given) == 1 and ("=" not in given[0] or Path(given[0]).is_dir())
    if not is_run and (others := [each for each in given if "=" not in each]):
        raise UserError(
            f"{others[0]}: expected one RUN, or settings alone, such as data=image_folder data.root=FOLDER."
        )
    if not is_run and (named := [each for each in given if each.startswith(("resume=", "rerun="))]):
        raise UserError(f"{named[0]}: expected the run alone: audit {shlex.quote(named[0].partition('=')[2])}")
    for remark in [] if is_run else repeated_keys(given):
        print(remark, file=sys.stderr)
    folder = Path(given[0]) if is_run else None
    device = [f"trainer.accelerator={options.accelerator}"] if options.accelerator else []
    cfg, hint = (own_config(folder), "") if folder else composed([*given, *device])
    out = check_new(options.out or (folder or Path()) / "audit", options.overwrite, is_folder=True)
    try:
        audit, pixels = audited(cfg, folder, options.accelerator, hint)
    except UserError as error:
        if not hint or not str(error).startswith("data."):
            raise
        raise UserError(f"{error}{hint}") from error
    with atomic_folder(out, last="audit.html") as folder_of_both:
        write_table(folder_of_both / "audit.csv", audit)
        write_audit_page(folder_of_both / "audit.html", audit, pixels, options.top)
    counts = [(title, number, across or "") for title, number, across in audit.counts()]
    print(tabulate(counts, ["finding", "number", "across splits"]))
    print(f"\n{tabulate(audit.summary.items(), tablefmt='plain')}\n")
    name = printable(str(out))
    print(f"{name}/audit.html\n{name}/audit.csv")
    leaves_out = as_override("data.exclude", f"{name}/audit.csv")
    print(f"Mark rows with x in the column exclude: {leaves_out} leaves these images out.")
    return 0


def composed(settings: Sequence[str]) -> tuple[Any, str]:
    """The config of data, model and trainer that settings on the command line of train.py describe, and a hint.

    The hint is that of `assumed_data`.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from transfer_learning.cli.build import absolute_paths, check_added_keys
    from transfer_learning.cli.errors import assumed_data
    from transfer_learning.cli.overrides import keys_of, quoted
    from transfer_learning.cli.project import PROJECT, check_installation
    from transfer_learning.utilities.hardware import default_precision

    check_installation()
    chosen = {"model", "system", "experiment"} & keys_of(settings)
    overrides = [*map(quoted, settings), *([] if chosen else ["model=vgg16_frozen"])]
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)  # interpolations use it
    hint = assumed_data(settings, cfg.hydra.runtime.choices.data)
    with open_dict(cfg):
        del cfg["hydra"]
    try:
        check_added_keys(cfg, list(settings))
        absolute_paths(cfg)
        if cfg.trainer.precision == "auto":
            cfg.trainer.precision = default_precision(cfg.trainer.accelerator)
        parts = {
            key: OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True) for key in ("data", "model")
        }
        return OmegaConf.create({**parts, "trainer": cfg.trainer, "seed": cfg.seed}), hint
    finally:
        HydraConfig.instance().cfg = None


def audited(cfg: Any, folder: Path | None, accelerator: str | None, hint: str) -> tuple[Any, Any]:
    """The audit of a config's images, or of the images of the run in `folder`, and their pixels.

    `accelerator` takes the place of the config's; `hint` is shown if the images are too few to be split.
    """
    from contextlib import nullcontext

    import pytorch_lightning as pl

    from transfer_learning.cli.build import build, build_data
    from transfer_learning.cli.errors import name_keys
    from transfer_learning.engine.audit import WherePossible, audit
    from transfer_learning.engine.classifier import Classifier
    from transfer_learning.engine.training import compile_network, frozen_part
    from transfer_learning.runs.folder import RunFolder
    from transfer_learning.utilities.errors import UserError
    from transfer_learning.utilities.hardware import accelerator_errors, configure_process

    configure_process()
    settings: dict = {"precision": cfg.trainer.precision, "logger": False, "enable_checkpointing": False}
    chosen = accelerator or cfg.trainer.accelerator
    with nullcontext() if accelerator else name_keys(cfg), accelerator_errors(chosen):
        trainer = pl.Trainer(accelerator=chosen, devices=1, **settings)
    with name_keys(cfg):
        data = build_data(cfg)
        data.split = data.split if folder else WherePossible(data.split)
        data.list_images()  # decoding waits for the check of the network
        if hint and not len(data.splits["val"]):
            print(hint.strip(), file=sys.stderr)
        pl.seed_everything(cfg.seed, verbose=False)  # as the training did: for a model without weights
        size = data.preprocessing.image_size
        network = build(cfg, "model", num_classes=len(data.class_names), image_size=size)
        if cfg.trainer.compile:  # as the training did, whose features are stored
            compile_network(network, trainer.strategy.root_device)
        part = frozen_part(Classifier(network, data.class_names, data.preprocessing), trainer, cfg.trainer.compile)
        if part is None:
            reason = "has no frozen layers, whose features an audit compares"
            way = "Audit the data with another model: data=... model=vgg16_frozen"
            raise UserError(f"{type(network).__name__}: {reason}. {way}")
        data.setup()
        if folder:
            RunFolder(folder).check_images(data)
        return audit(data, part), data.pixels
