"""Networks: a frozen part, then a trainable part. Backbones and their weights."""
