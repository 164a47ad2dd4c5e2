"""Training, evaluation, inference, audits and export: the LightningModule, its objective, metrics and checkpoints."""
