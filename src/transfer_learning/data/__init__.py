"""From files to batches on the device. Knows no model."""
