"""The cores of this machine that this process may use."""


def usable_cores() -> int:
    """The cores of this process's affinity, or its container's share of the machine (cgroups) if that is less.

    Hyperthreads count as cores, but not in torch's own number of threads.
    """
    from joblib import cpu_count  # only here: importing joblib changes the environment

    return cpu_count()
