"""Names of metrics for people, and which values are better. A metric's key is `split/name`, such as `val/acc`."""

LABELS = {"acc": "accuracy", "balanced_acc": "balanced accuracy", "macro_f1": "macro F1", "lr": "learning rate"}
SPLITS = {"train": "training", "val": "validation", "test": "test"}
LOWER_IS_BETTER, HIGHER_IS_BETTER = {"loss"}, {"acc", "balanced_acc", "macro_f1"}


def label(key: str) -> str:
    """`val/acc` -> "validation accuracy"; a name that has no label stays as it is."""
    split, slash, name = key.rpartition("/")
    return f"{SPLITS.get(split, split)} {LABELS.get(name, name)}" if slash else LABELS.get(name, name)


def is_worst(key: str, mode: str) -> bool:
    """Whether "min" or "max" would choose the worst value of a metric that is known."""
    return key.rpartition("/")[2] in (HIGHER_IS_BETTER if mode == "min" else LOWER_IS_BETTER)


def default_mode(key: str) -> str:
    """ "min" if lower values of the metric are better, else "max"."""
    return "min" if key.rpartition("/")[2] in LOWER_IS_BETTER else "max"
