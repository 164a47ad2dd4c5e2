"""Image classification by transfer learning. `load` rebuilds a trained model from its checkpoint."""


def __getattr__(name: str):
    if name == "load":  # imported on first use: `import transfer_learning` does not wait for torch
        from transfer_learning.engine.checkpoint import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
