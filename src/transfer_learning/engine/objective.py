"""Objectives: the loss of each image, and what logits mean."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from transfer_learning.utilities.validation import validated


@validated
class CrossEntropy:
    """Binary cross-entropy for one logit (that of the second of two classes), cross-entropy for C logits.

    Another objective is a subclass with its own `losses`, or with its own `probabilities` and `mean_logits` too.

    Args:
        label_smoothing: the share of each training target that is spread evenly over all C classes, as in
            `torch.nn.CrossEntropyLoss`: (1 - share) * target + share / C.
    """

    def __init__(self, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0):
        self.label_smoothing = label_smoothing

    def training_losses(
        self, logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `losses`, with label smoothing, and times the weight of the image's class, of `class_weights` (C,) float.

        Of a mixed image, each class's part of the loss has the class's weight. Losses of validation, test and
        calibration are neither smoothed nor weighted.
        """
        if class_weights is not None and targets.ndim == 1:
            return self.training_losses(logits, targets) * class_weights[targets]
        if class_weights is not None:
            targets = targets * class_weights
        if not self.label_smoothing:
            return self.losses(logits, targets)
        classes = max(2, logits.shape[1])
        shares = targets if targets.ndim == 2 else F.one_hot(targets, classes).to(logits.dtype)
        even = shares.mean(dim=1, keepdim=True)
        return self.losses(logits, (1 - self.label_smoothing) * shares + self.label_smoothing * even)

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each image, (N,) float.

        Args:
            logits: (N, 1) or (N, C) float.
            targets: class codes, (N,) int64, or probabilities, (N, C) float, in which the loss is linear: with weights
                of classes they are multiplied by them.
        """
        if logits.shape[1] > 1:
            return F.cross_entropy(logits, targets, reduction="none")
        if targets.ndim == 2:
            return -(targets * F.logsigmoid(torch.cat([-logits, logits], dim=1))).sum(dim=1)
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, C) float in [0, 1]."""
        if logits.shape[1] == 1:
            return torch.cat([-logits, logits], dim=1).sigmoid()
        return logits.softmax(dim=1)

    def mean_logits(self, versions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits whose probabilities are the mean of those of several logits, each (N, 1) or (N, C) float."""
        if len(versions) == 1:
            return versions[0]
        logits = torch.stack([*versions])
        if is_one := logits.shape[2] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=2)
        logarithms = logits.log_softmax(dim=2).logsumexp(dim=0)
        return logarithms[:, 1:] - logarithms[:, :1] if is_one else logarithms

    def predicted(self, logits: torch.Tensor) -> torch.Tensor:
        """The code of the most probable class, (N,) int64."""
        return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)
