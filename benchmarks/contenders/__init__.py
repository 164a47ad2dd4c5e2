"""What `epoch.py` measures: one contender a file, each with `train`, and `decode` where it decodes images.

`train(overrides, folder, ...)` trains until it is killed and calls `turns.turn` before each epoch; the overrides are
those of train.py. `decode(originals, folder)` decodes all photographs of a folder in each turn.
"""
