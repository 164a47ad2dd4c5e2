"""What results look like: metric names, curves and the summary. Works on plain values."""
