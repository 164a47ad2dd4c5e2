"""What the results of gpu.py depend on: device, driver, versions and code."""

import subprocess
import sys
from importlib.metadata import version

import torch
from gpu_steps import PROJECT, Settings

from transfer_learning.runs.provenance import attempt
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.files import file_sha256, sha256_of
from transfer_learning.utilities.hardware import check_gpu, default_precision


def describe(settings: Settings) -> dict:
    """Plain values by name. Exits if there is no such device, or if this torch has no code for it."""
    device = torch.device(settings.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
        sys.exit(
            f"no CUDA device can be used: {built}, driver {driver()}. --device cpu --short tries the command itself."
        )
    try:
        check_gpu(device)
    except ArgumentError as error:
        sys.exit(str(error))
    about = attempt([], PROJECT, device)
    found = {
        "commit": (about["git_commit"] or "unknown") + " with changes" * bool(about["git_dirty"]),
        "code": code(),
        "device": about["device"],
        "torch": torch.__version__,
        "lightning": version("pytorch-lightning"),
        "precision": default_precision({"cuda": "gpu"}.get(device.type, device.type)),
        **{key: about["machine"][key] for key in ("processor", "cores", "system")},
        "threads": about["threads"],
        "python": about["python"],
    }
    if device.type == "cuda":
        about_gpu = torch.cuda.get_device_properties(0)
        found |= {
            "driver": driver(),
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
            "compute capability": f"{about_gpu.major}.{about_gpu.minor}",
            "memory": f"{about_gpu.total_memory / 1e9:.1f} GB",
            "GPUs": torch.cuda.device_count(),
        }
    return found


def code() -> str:
    """SHA-256 (hex, 12 digits) of the files that compute, also where git is missing."""
    patterns = ("src/**/*.py", "conf/**/*.yaml", "benchmarks/**/*.py", "train.py")
    files = sorted(file for pattern in patterns for file in PROJECT.glob(pattern))
    return sha256_of([(file.relative_to(PROJECT).as_posix(), file_sha256(file)) for file in files])[:12]


def driver() -> str:
    """The version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=30)
        return found.stdout.split("\n")[0].strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"
