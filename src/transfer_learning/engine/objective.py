"""Objectives: the loss of each image, and what logits mean."""

import torch
import torch.nn.functional as F


class CrossEntropy:
    """Binary cross-entropy for one logit (that of the second of two classes), cross-entropy for C logits.

    Another objective is a subclass with its own `losses`, or with its own `probabilities` too.
    """

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each image, (N,) float.

        Args:
            logits: (N, 1) or (N, C) float.
            targets: class codes, (N,) int64, or probabilities, (N, C) float.
        """
        if logits.shape[1] > 1:
            return F.cross_entropy(logits, targets, reduction="none")
        second = targets[:, 1] if targets.ndim == 2 else targets.float()
        return F.binary_cross_entropy_with_logits(logits[:, 0], second, reduction="none")

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, C) float in [0, 1]."""
        if logits.shape[1] == 1:
            return torch.cat([-logits, logits], dim=1).sigmoid()
        return logits.softmax(dim=1)

    def predicted(self, logits: torch.Tensor) -> torch.Tensor:
        """The code of the most probable class, (N,) int64."""
        return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)
