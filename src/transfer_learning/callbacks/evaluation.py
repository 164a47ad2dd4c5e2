"""What a run shows of its predictions: predictions.csv, and figures in its folder and in the loggers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import NonNegativeInt
from pytorch_lightning.trainer.states import TrainerFn

from transfer_learning.callbacks.loggers import adapters
from transfer_learning.callbacks.run_end import RunEndCallback, improves, validate
from transfer_learning.data.batch import as_floats
from transfer_learning.models.grad_cam import grad_cam
from transfer_learning.reporting import figures
from transfer_learning.reporting.prediction_table import PredictionTable, write_predictions
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.files import sha256_of
from transfer_learning.utilities.validation import validated


@validated
class Evaluation(RunEndCallback):
    """Keeps the predictions of the best epoch's validation and of the test.

    At the end of the run, the best epoch is validated once more only if its predictions were not kept.
    Writes `predictions.csv` when the monitored metric improves, and at the end of the run with the test. Then draws
    `confusion`, `mistakes` and `reliability` of both, such as `confusion-val.png`, and `gradcam-val.png`.

    Args:
        mistakes: the number of most confident mistakes that are shown.
        explained: the numbers of right and of wrong predictions that are shown with Grad-CAM.
    """

    def __init__(self, mistakes: NonNegativeInt = 20, explained: NonNegativeInt = 3):
        self.mistakes, self.explained = mistakes, explained
        self.best: dict[str, torch.Tensor] = {}  # "indices", "logits" and "labels" of the best epoch's validation
        self.epoch: int | None = None  # that of `best`, from 1; None if it was validated after the fit
        self.images: str | None = None  # SHA-256 of the digests of all images, which the indices number
        self.validated = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.epoch, self.images = state_dict["best"], state_dict["epoch"], state_dict.get("images")

    def on_fit_start(self, trainer: Any, model: Any) -> None:
        """Forgets predictions of a checkpoint if a copy or a file that is no image has moved the indices since."""
        images = sha256_of(list(trainer.datamodule.images.digests))
        if images != self.images:
            self.best, self.epoch, self.images = {}, None, images

    def on_validation_end(self, trainer: Any, model: Any) -> None:
        self.validated = not trainer.sanity_checking
        if trainer.state.fn == TrainerFn.VALIDATING:  # the best epoch once more
            self._keep(trainer, model)
        self.on_train_epoch_end(trainer, model)

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        """Monitored metrics of the training are known here, those of the validation when it ends."""
        if self.validated and trainer.state.fn == TrainerFn.FITTING and improves(trainer):
            self._keep(trainer, model)

    def _keep(self, trainer: Any, model: Any) -> None:
        self.validated = False
        self.epoch = trainer.current_epoch + 1 if trainer.state.fn == TrainerFn.FITTING else None
        self.best = {key: value.cpu() for key, value in model.predictions["val"]._asdict().items()}
        if trainer.is_global_zero:
            write_predictions(Path(trainer.default_root_dir, "predictions.csv"), [self._table(trainer, model, "val")])

    def on_run_end(self, trainer: Any, model: Any, best_epoch: int) -> None:
        if not self.best or self.epoch not in (None, best_epoch):  # the checkpoint is of an epoch that was not kept
            validate(trainer, model, datamodule=trainer.datamodule)
            model.eval()
        if not trainer.is_global_zero:
            return
        folder, loggers = Path(trainer.default_root_dir), adapters(trainer)
        splits = [split for split in ("val", "test") if split == "val" or split in model.predictions]
        tables = {split: self._table(trainer, model, split) for split in splits}
        write_predictions(folder / "predictions.csv", list(tables.values()))
        figures.remove_figures(folder)  # of the run before it was extended
        written = []
        with ThreadPoolExecutor(1) as writer:  # a file is encoded while the next figure is drawn
            for split, table in tables.items():
                for name, figure in self._figures(trainer, model, split, table).items():
                    image = figures.rendered(figure)
                    written.append(writer.submit(figures.write_png, folder / f"{name}-{split}.png", image))
                    for adapter in loggers:
                        adapter.image(f"{name}/{split}", image)
        for each in written:
            each.result()

    def _figures(self, trainer: Any, model: Any, split: str, table: PredictionTable) -> dict[str, Figure]:
        indices = self._predictions(model, split)["indices"].cpu().numpy()
        wrong = figures.most_confident(table, self.mistakes, right=False)
        shown = figures.of_predictions(table, wrong, trainer.datamodule.pixels[indices[wrong]])
        if split == "val" and self.explained:
            rows = np.concatenate([figures.most_confident(table, self.explained, right) for right in (True, False)])
            shown |= self._grad_cam(model, table, rows, trainer.datamodule.pixels[indices[rows]])
        return shown

    def _grad_cam(self, model: Any, table: PredictionTable, rows: np.ndarray, pixels: np.ndarray) -> dict[str, Figure]:
        """Rows of the table with Grad-CAM of the predicted class; {} if the network has no maps."""
        overlays = overlays_if_maps(model, pixels, table.predicted[rows])
        if overlays is None:
            return {}
        titles = [figures.caption(table, n) for n in rows]
        return {"gradcam": figures.image_grid(overlays, titles, columns=self.explained)}

    def _predictions(self, model: Any, split: str) -> dict[str, torch.Tensor]:
        return self.best if split == "val" else model.predictions[split]._asdict()

    def _table(self, trainer: Any, model: Any, split: str) -> PredictionTable:
        found = self._predictions(model, split)
        images = trainer.datamodule.images.take(found["indices"].cpu().numpy())
        probabilities = model.probabilities(found["logits"].float()).cpu().numpy()
        splits = [split] * len(images.names)
        return PredictionTable(images.names, images.digests, splits, images.labels, probabilities, model.class_names)


def grad_cam_overlays(model: Any, pixels: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Images under their Grad-CAM, (H, W, 3) uint8 each; pixels (N, H, W, 3) uint8 and class codes (N,) int64.

    Raises UserError as `grad_cam`.
    """
    images = as_floats(torch.from_numpy(pixels).to(model.device)).to(model.dtype)
    maps = grad_cam(model.network, images, torch.from_numpy(codes).to(model.device)).cpu().numpy()
    return [figures.overlay(image, cam) for image, cam in zip(pixels, maps)]


def overlays_if_maps(model: Any, pixels: np.ndarray, codes: np.ndarray) -> list[np.ndarray] | None:
    """As `grad_cam_overlays`; None if the network has no maps."""
    try:
        return grad_cam_overlays(model, pixels, codes)
    except UserError:
        return None
