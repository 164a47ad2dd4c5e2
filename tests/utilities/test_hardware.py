import multiprocessing
import os
import platform
import subprocess
import sys
from functools import partial

import pytest
import torch

from transfer_learning.utilities import hardware
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.hardware import memory_format, seed_generators


@pytest.fixture
def cpu_flags(monkeypatch, tmp_path):
    """cpu_flags(text): what /proc/cpuinfo lists as the flags of the processor; None removes the file."""

    def set_to(text, vendor="AuthenticAMD"):
        file = tmp_path / "cpuinfo"
        if text is not None:
            file.write_text(f"vendor_id\t: {vendor}\nflags\t\t: {text}\nbugs\t\t: avx512_bf16\n")
        monkeypatch.setattr(hardware, "Path", lambda name: file)

    return set_to


@pytest.mark.parametrize(
    "flags, vendor, expected",
    [
        ("fpu avx512f avx512_bf16", "AuthenticAMD", "bf16-mixed"),
        ("fpu avx512f avx512_bf16", "GenuineIntel", "32-true"),  # slower than float32 there
        ("fpu avx512_bf16 amx_bf16", "GenuineIntel", "bf16-mixed"),
        ("fpu avx2 avx512f", "AuthenticAMD", "32-true"),  # torch computes bfloat16 here too, slowly
        (None, None, "32-true"),
    ],
)
def test_precision_of_a_cpu_is_the_faster_one(cpu_flags, flags, vendor, expected):
    cpu_flags(flags, vendor)
    assert hardware.default_precision("cpu") == expected


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
@pytest.mark.parametrize("native, expected", [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_of_a_gpu_ignores_emulation(monkeypatch, cpu_flags, accelerator, native, expected):
    cpu_flags("avx512_bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert hardware.default_precision(accelerator) == expected


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


@pytest.mark.parametrize("name, expected", [("auto", 1), ("gpu", 1), ("mps", 1), ("cuda", 0), ("cpu", 0)])
def test_the_gpu_of_a_mac_counts(monkeypatch, name, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.count_gpus(name) == expected


@pytest.mark.parametrize(
    "gpus, is_mac, accelerator, message",
    [
        (0, False, "bogus", "no such accelerator; expected auto, cpu, gpu or mps."),
        (0, False, "gpu", "torch finds no such device here; expected auto or cpu."),
        (0, False, "cuda", "torch finds no such device here; expected auto or cpu."),
        (0, False, "mps", "torch finds no such device here; expected auto or cpu."),
        (2, False, "mps", "torch finds no such device here; expected auto, cpu or gpu."),
        (0, True, "cuda", "torch finds no such device here; expected auto, cpu or gpu."),
        (2, False, "gpu", None),
        (2, False, "cuda", None),
        (0, True, "mps", None),
        (0, False, "auto", None),
        (0, False, "cpu", None),
        (0, False, "tpu", None),  # Lightning's own message tells what to install
    ],
)
def test_an_accelerator_that_this_machine_lacks_is_refused(monkeypatch, gpus, is_mac, accelerator, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: is_mac)
    if message is None:
        return hardware.check_accelerator(accelerator)
    for refused in (hardware.check_accelerator, lambda name: hardware.accelerator_errors(name).__enter__()):
        with pytest.raises(ArgumentError) as error:
            refused(accelerator)
        assert (error.value.argument, error.value.value, error.value.message) == ("accelerator", accelerator, message)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, ModuleNotFoundError])
def test_errors_of_lightning_about_an_accelerator_are_those_of_the_argument(kind):
    with pytest.raises(ArgumentError, match="accelerator='cpu': not here"), hardware.accelerator_errors("cpu"):
        raise kind("not\n here")


@pytest.mark.parametrize("given, expected", [(None, ":4096:8"), (":16:8", ":16:8")])
def test_cublas_is_configured_before_cuda_starts(monkeypatch, given, expected):
    """A sweep over `deterministic` would set it too late, in its second job."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if given:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    hardware.configure_process()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected and not torch.cuda.is_initialized()


@pytest.mark.parametrize("cores, set_by_user, expected", [(1, None, 1), (1, "2", 2), (8, None, 2)])
def test_threads_are_no_more_than_the_cores_that_may_be_used(monkeypatch, cores, set_by_user, expected):
    monkeypatch.setattr(hardware, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_by_user:
        monkeypatch.setenv("OMP_NUM_THREADS", set_by_user)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        hardware.configure_process()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def gpu(monkeypatch):
    """gpu(capability, architectures): what CUDA's functions tell of a GPU and of the build of torch."""

    def make(capability, architectures):
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures.split())
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
        return torch.device("cuda:0")

    return make


CUDA_13 = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120"


@pytest.mark.parametrize("capability", [(7, 0), (6, 1), (5, 2)])
def test_an_older_gpu_than_torch_has_code_for_is_refused_in_one_line_that_names_the_other_build(gpu, capability):
    with pytest.raises(ArgumentError, match="^accelerator='cuda': the Tesla V100 has compute capability") as error:
        hardware.check_gpu(gpu(capability, CUDA_13))
    message = str(error.value)
    assert "for CUDA 12.6 (cu126)" in message and "expected cpu" in message and "\n" not in message
    hardware.check_gpu(torch.device("cpu"))


@pytest.mark.parametrize(
    "capability, architectures",
    [
        ((7, 5), CUDA_13),
        ((8, 9), CUDA_13),  # as 8.6
        ((9, 0), "sm_75 sm_90a"),
        ((13, 0), CUDA_13),  # by PTX
        ((7, 0), "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"),
        ((9, 4), "gfx90a gfx942"),  # AMD
        ((7, 0), ""),
    ],
)
def test_gpus_that_torch_has_code_for(gpu, capability, architectures):
    hardware.check_gpu(gpu(capability, architectures))


@pytest.mark.parametrize("capability, architectures", [((12, 0), "sm_80 sm_90"), ((8, 0), "sm_70 sm_86")])
def test_a_newer_gpu_needs_a_newer_torch(gpu, capability, architectures):
    with pytest.raises(ArgumentError, match="or install a newer torch"):
        hardware.check_gpu(gpu(capability, architectures))
