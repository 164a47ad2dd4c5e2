"""From files to batches on the device: sources, splits, preprocessing, augmentation and caches. Knows no model."""
