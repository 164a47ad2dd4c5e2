"""What this machine is, and how its CPU is set up before anything is computed."""

import ctypes
import multiprocessing
import platform
import re
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and values of glibc's <malloc.h>


def set_up_cpu() -> None:
    """For the whole process; call it before torch starts its threads, which inherit it.

    Numbers that fade below 1e-38, as an optimiser's averages do when a head has learnt all, slow a CPU down: here they become 0.

    glibc hands memory blocks of 32 MB and more back at once, so every step would have its gradients and maps cleared anew by the kernel,
    page by page: half of a small network's step. Here freed memory is kept for the next step.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(
            M_MMAP_THRESHOLD, 2**25
        )  # before 2.35 it takes no more than this
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def native_precision(accelerator: str) -> str:
    """Lightning's "bf16-mixed" where the accelerator that it would choose computes bfloat16 in hardware, else "32-true".

    Args:
        accelerator: Lightning's name: "auto", "gpu", "cpu" …
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available()):
        native = bool(
            {"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split())
        )  # torch's own "supported" counts emulation too
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def gpu_of_worker(accelerator: str) -> list[int] | None:
    """The GPU of this process, where it is one of joblib's workers, which take them in turn; None where there is no choice."""
    worker = re.fullmatch(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    return [int(worker[1]) % gpus] if worker and gpus > 1 else None


def _cpuinfo(key: str) -> str:
    """What Linux says of the first core; elsewhere, or where it says nothing, an empty string."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def processor() -> str:
    """The processor's name as a person knows it: "AMD EPYC", where the system tells."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Kind and model: "cuda (NVIDIA H100)", "cpu (x86_64)"."""
    return (
        f"{device.type} ({torch.cuda.get_device_name(device)})"
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})"
    )
