import io
import os
import subprocess
import sys

import pytest

from transfer_learning.utilities.cores import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs an operating system with affinities")
def test_cores_are_those_of_the_process_not_of_the_machine():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from transfer_learning.utilities.cores import usable_cores; print(usable_cores())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1" and 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_a_container_has_the_cores_of_its_quota(monkeypatch):
    """What Linux shows in a container that was started with two cores of eight."""
    shown = {"/sys/fs/cgroup/cpu.max": "200000 100000"}
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("os.path.exists", lambda path: path in shown)
    monkeypatch.setattr("builtins.open", lambda path, *arguments, **settings: io.StringIO(shown[path]))
    assert usable_cores() == 2
