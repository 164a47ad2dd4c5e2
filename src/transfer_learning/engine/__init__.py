"""Training: the LightningModule, its objective, metrics and predictions, checkpoints, and `train`."""
