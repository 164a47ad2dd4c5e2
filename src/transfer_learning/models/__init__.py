"""Networks: a frozen part, then a trainable part. Backbones, their weights, and Grad-CAM."""
