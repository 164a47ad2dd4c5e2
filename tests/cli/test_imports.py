"""Each test is a process of its own: this one has imported everything."""

import subprocess
import sys
import textwrap

import pytest

BEGIN = "import sys; from transfer_learning.cli.imports import Postponed, import_lightning;"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGIN + textwrap.dedent(code)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "how", ["import scipy.signal as s", "from scipy import signal as s", "import scipy; s = scipy.signal"]
)
def test_lightning_and_torchmetrics_are_there_without_scipy_signal_which_can_be_imported_afterwards(how):
    code = "\nimport_lightning()\n"
    code += "print([name in sys.modules for name in ('pytorch_lightning', 'torchmetrics', 'scipy.signal')])\n"
    code += f"{how}\nprint(s.find_peaks([0, 1, 0])[0], sys.modules['scipy.signal'] is s)"
    assert python(code) == "[True, True, False]\n[1] True\n"


@pytest.mark.parametrize(
    "how", ["import scipy.signal; f = scipy.signal.find_peaks", "from scipy.signal import find_peaks as f",
            "import scipy.signal.windows as w; assert w.hann(3)[1] == 1; from scipy.signal import find_peaks as f"]
)  # fmt: skip
def test_a_library_that_needs_it_meanwhile_gets_it(how):
    code = f"\nsys.modules['scipy.signal'] = Postponed('scipy.signal')\n{how}\nprint(f([0, 1, 0])[0])"
    assert python(code) == "[1]\n"


def test_scipy_signal_that_is_there_already_stays():
    code = "\nimport scipy.signal as s\nimport_lightning()\nprint(sys.modules['scipy.signal'] is s)"
    assert python(code) == "True\n"
