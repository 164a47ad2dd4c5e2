import multiprocessing
import platform
import subprocess
import sys
from functools import partial

import pytest
import torch

from transfer_learning.utilities import hardware
from transfer_learning.utilities.hardware import memory_format, seed_generators


@pytest.fixture
def cpu_flags(monkeypatch, tmp_path):
    """cpu_flags(text): what /proc/cpuinfo lists as the flags of the processor; None removes the file."""

    def set_to(text):
        file = tmp_path / "cpuinfo"
        if text is not None:
            file.write_text(f"processor\t: 0\nflags\t\t: {text}\nbugs\t\t: avx512_bf16\n")
        monkeypatch.setattr(hardware, "Path", lambda name: file)

    return set_to


@pytest.mark.parametrize(
    "flags, expected",
    [
        ("fpu avx512f avx512_bf16", "bf16-mixed"),
        ("fpu amx_bf16", "bf16-mixed"),
        ("fpu avx2 avx512f", "32-true"),  # torch computes bfloat16 here too, slowly
        (None, "32-true"),
    ],
)
def test_precision_of_a_cpu_is_what_it_computes_in_hardware(cpu_flags, flags, expected):
    cpu_flags(flags)
    assert hardware.native_precision("cpu") == expected


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
@pytest.mark.parametrize("native, expected", [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_of_a_gpu_ignores_emulation(monkeypatch, cpu_flags, accelerator, native, expected):
    cpu_flags("avx512_bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert hardware.native_precision(accelerator) == expected


def test_freed_memory_is_kept_and_denormal_numbers_become_zero():
    """Counts the pages that the kernel cleared: 64 MB take 16,384 each time, or none if memory is kept."""
    code = (
        "import resource, torch\n"
        "from transfer_learning.utilities.hardware import configure_process; configure_process()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10):\n"
        "    before = faults(); torch.ones(2**24)\n"
        "print(faults() - before, (torch.tensor([1e-38]) / 4).item())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pages, denormal = result.stdout.split()
    assert denormal == "0.0"
    name, version = platform.libc_ver()
    if name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35):
        assert int(pages) < 1000


@pytest.mark.parametrize(
    "name, gpus, accelerator, expected",
    [
        ("LokyProcess-1", 4, "auto", [1]),
        ("LokyProcess-4", 4, "gpu", [0]),
        ("LokyProcess-2", 1, "auto", None),
        ("LokyProcess-2", 4, "cpu", None),
        ("MainProcess", 4, "auto", None),
    ],
)
def test_joblib_workers_take_turns_on_the_gpus(monkeypatch, name, gpus, accelerator, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(multiprocessing.current_process(), "name", name)
    assert hardware.gpu_of_worker(accelerator) == expected


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("type", ["cpu", "cuda", "mps"])
def test_the_generators_of_the_cpu_and_of_the_device_are_seeded_and_no_others(monkeypatch, type, seed):
    torch.manual_seed(seed)
    expected, seeded = torch.rand(5), []
    for name in ("cuda", "mps", "xpu"):
        monkeypatch.setattr(getattr(torch, name), "manual_seed", partial(lambda *each: seeded.append(each), name))
        monkeypatch.setattr(getattr(torch, name), "manual_seed_all", None, raising=False)
    seed_generators(torch.device(type), seed)
    assert torch.equal(torch.rand(5), expected) and seeded == ([] if type == "cpu" else [(type, seed)])


def test_images_are_contiguous_on_mps_alone():
    assert memory_format(torch.device("mps", 0)) == torch.contiguous_format
    assert {memory_format(torch.device(each)) for each in ("cpu", "cuda")} == {torch.channels_last}
