"""What this machine is, and process settings for computing on its CPU and GPUs."""

import ctypes
import multiprocessing
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from transfer_learning.utilities.cores import usable_cores
from transfer_learning.utilities.errors import ArgumentError

# Types of devices on which torch up to 2.12 trains channels-last networks wrongly, or cannot repeat an image's border
WITHOUT_CHANNELS_LAST, WITHOUT_BORDER_PADDING = {"mps"}, {"mps"}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's <malloc.h>
# The last builds for compute capability 5.0 to 7.0
OLDER_GPUS = "another build: torch below 2.15 for CUDA 12.6 (cu126), as pytorch.org's installation page shows"
EXPECTED_WARNINGS = (
    ".*LeafSpec.*",  # Lightning uses a part of torch that is deprecated
    ".*in eval mode at the start of training.*",  # frozen layers stay in evaluation mode
    ".*smaller than the logging interval.*",  # nothing is logged by step
    ".*is not empty.*",  # a run that is resumed
    ".*Glyph.*missing.*",  # matplotlib's font has not all scripts: a name shows boxes
    ".*does not have many workers.*",  # batches are slices of an array in memory: workers would only copy them
    ".*smallest subnormal.*",  # NumPy before 2 finds that denormal numbers are 0, as they are on purpose
    ".*given NumPy array is not writable.*",  # cached arrays are read-only, and nothing writes to them
)


def configure_process() -> None:
    """Sets up computing, and hides expected warnings. Call it before torch starts threads or CUDA; it may be repeated.

    Denormal numbers, which slow down a CPU, become 0. glibc keeps freed memory: by default it returns blocks of 32 MB
    and more to the kernel, which clears them at each step: half of the time of a small network's step. torch starts as
    many threads as there are physical cores, also in a container that may use fewer: there it gets as many as may be
    used, unless OMP_NUM_THREADS is set. cuBLAS gets the workspace that `deterministic=True` needs: it is read once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_flush_denormal(True)
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        if not libc.mallopt(M_MMAP_THRESHOLD, 2**30):
            libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the limit before glibc 2.35
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)


def memory_format(device: torch.device) -> torch.memory_format:
    """How images, maps and weights lie in the memory of a device."""
    return torch.contiguous_format if device.type in WITHOUT_CHANNELS_LAST else torch.channels_last


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds the random numbers of the CPU and of the current device of `device`'s type; `seed` is in [0, 2**64).

    `torch.manual_seed` does so for all types of devices; one that is not used costs a stack trace each time.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def default_precision(accelerator: str) -> str:
    """Lightning's "bf16-mixed" if the accelerator that it would choose trains faster with it, else "32-true".

    That is so on GPUs that compute bfloat16 in hardware, and on CPUs with AMX. AVX-512's bfloat16 was faster than
    float32 on AMD's CPUs, and slower on Intel's (docs/benchmarks.md). `accelerator` is Lightning's name: "auto", "gpu",
    "cpu" ...
    """
    faster = False
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available()):
        flags, vendor = _cpuinfo("flags").split(), _cpuinfo("vendor_id")  # torch's own answer counts emulation
        faster = "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")
    return "bf16-mixed" if faster else "32-true"


def count_gpus(accelerator: str) -> int:
    """The number of GPUs among which Lightning would choose for its `accelerator`; 0 if it would use the CPU."""
    nvidia = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    return nvidia or int(accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available())


def gpu_of_worker(accelerator: str) -> list[int] | None:
    """The GPU of this process if it is a joblib worker; workers get the GPUs in turn. None if there is no choice."""
    worker, gpus = re.fullmatch(r"LokyProcess-(\d+)", multiprocessing.current_process().name), count_gpus(accelerator)
    return [int(worker[1]) % gpus] if worker and gpus > 1 else None


def check_accelerator(accelerator: str) -> None:
    """Raises ArgumentError for a name that Lightning does not know, and for a GPU that torch cannot use here."""
    if accelerator not in ("auto", "gpu", *AcceleratorRegistry.available_accelerators()):
        raise ArgumentError("accelerator", accelerator, "no such accelerator; expected auto, cpu, gpu or mps.")
    if accelerator in ("gpu", "cuda", "mps") and not count_gpus(accelerator):
        names = "auto, cpu or gpu" if count_gpus("gpu") else "auto or cpu"
        raise ArgumentError("accelerator", accelerator, f"torch finds no such device here; expected {names}.")


@contextmanager
def accelerator_errors(accelerator: str) -> Iterator[None]:
    """Turns Lightning's error of the block about an accelerator into an ArgumentError; `check_accelerator` is first."""
    check_accelerator(accelerator)
    try:
        yield
    except (ValueError, RuntimeError, ModuleNotFoundError, MisconfigurationException) as error:
        raise ArgumentError("accelerator", accelerator, " ".join(str(error).split())) from error


def check_gpu(device: torch.device) -> None:
    """Raises ArgumentError for an NVIDIA GPU that this torch has no code for.

    Code for compute capability 7.5 runs on 7.5 to 7.9; PTX (`compute_75`), which the driver compiles, on later ones.
    """
    names = torch.cuda.get_arch_list() if device.type == "cuda" else []
    found = [re.match(r"(sm|compute)_(\d+)(\d)", name) for name in names]  # AMD's begin otherwise
    codes = [(name[1] == "compute", (int(name[2]), int(name[3]))) for name in found if name]
    own = torch.cuda.get_device_capability(device) if codes else (0, 0)
    if not codes or any(code <= own and (is_ptx or code[0] == own[0]) for is_ptx, code in codes):
        return
    gpu = f"the {torch.cuda.get_device_name(device)} has compute capability {own[0]}.{own[1]}"
    ways = OLDER_GPUS if own < min(code for _, code in codes) else "a newer torch"
    have = f"this torch has code for {', '.join(names)} only"
    raise ArgumentError("accelerator", device.type, f"{gpu}, and {have}; expected cpu, or install {ways}.")


def _cpuinfo(key: str) -> str:
    """The value of `key` for the first core in Linux's /proc/cpuinfo, or an empty string."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
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
