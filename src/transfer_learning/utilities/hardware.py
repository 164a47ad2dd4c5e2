"""What this machine is, and process settings for computing on its CPU."""

import ctypes
import multiprocessing
import platform
import re
import warnings
from pathlib import Path

import torch

# Types of devices on which torch up to 2.12 trains channels-last networks wrongly, and cannot repeat an image's border.
LIMITED = {"mps"}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's <malloc.h>
EXPECTED_WARNINGS = (
    ".*LeafSpec.*",  # Lightning uses a part of torch that is deprecated
    ".*in eval mode at the start of training.*",  # frozen layers stay in evaluation mode
    ".*smaller than the logging interval.*",  # nothing is logged by step
    ".*is not empty.*",  # a run that is resumed
    ".*Glyph.*missing.*",  # matplotlib's font has not all scripts: a name shows boxes
    ".*does not have many workers.*",  # batches are slices of an array in memory: workers would only copy them
    ".*given NumPy array is not writable.*",  # cached arrays are read-only, and nothing writes to them
)


def configure_process() -> None:
    """Sets up CPU computation and hides expected warnings. Call it before torch starts threads; it may be repeated.

    Denormal numbers, which slow down a CPU, become 0. glibc keeps freed memory: by default it returns blocks of 32 MB
    and more to the kernel, which clears them at each step: half of the time of a small network's step.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the limit before glibc 2.35
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)


def memory_format(device: torch.device) -> torch.memory_format:
    """How images, maps and weights lie in the memory of a device."""
    return torch.contiguous_format if device.type in LIMITED else torch.channels_last


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds the random numbers of the CPU and of the current device of `device`'s type; `seed` is in [0, 2**64).

    `torch.manual_seed` does so for all types of devices; one that is not used costs a stack trace each time.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def native_precision(accelerator: str) -> str:
    """Lightning's "bf16-mixed" if the accelerator that it would choose computes bfloat16 in hardware, else "32-true".

    `accelerator` is Lightning's name: "auto", "gpu", "cpu" ...
    """
    native = False
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available()):
        native = bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))  # torch's answer counts emulation
    return "bf16-mixed" if native else "32-true"


def gpu_of_worker(accelerator: str) -> list[int] | None:
    """The GPU of this process if it is a joblib worker, which take turns; None if there is nothing to choose."""
    worker = re.fullmatch(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    return [int(worker[1]) % gpus] if worker and gpus > 1 else None


def _cpuinfo(key: str) -> str:
    """The value of `key` for the first core in Linux's /proc/cpuinfo, or an empty string."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def processor() -> str:
    """The processor's name, such as "AMD EPYC"."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Type and model of a device: "cuda (NVIDIA H100)", "cpu (x86_64)"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"
