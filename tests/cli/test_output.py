import logging
import os
import shlex
import subprocess
import sys

import pytest

from transfer_learning.cli.output import without_device_notices, without_notices
from transfer_learning.cli.project import PROJECT

SIZES = ["data.image_size=32", "data.train_per_class=9", "data.val_per_class=4", "data.test_per_class=4"]
TINY = ["data=cartoons", *SIZES, "data.batch_size=6", "trainer=cpu", "model.channels=[4]", "model.dense=[8]"]
TINY += ["callbacks=[checkpoints]", "logger=none"]


def test_closed_streams_are_no_error(tmp_path):
    where = [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache"]
    command = shlex.join([sys.executable, f"{PROJECT}/train.py", *TINY, "trainer.max_epochs=1", *where])
    assert subprocess.run(f"{command} >&- 2>&-", shell=True).returncode == 0
    assert (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("rates, code", [pytest.param("1e-3,1e-4", 0, marks=pytest.mark.slow), ("1e-3,1e30", 1)])
def test_a_sweep_whose_output_nobody_reads_writes_its_leaderboard_and_ends_as_usual(tmp_path, rates, code):
    where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache", "trainer.max_epochs=1"]
    command = [sys.executable, str(PROJECT / "train.py"), "-m", *TINY, *where, f"optimizer.lr={rates}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # as `head` does
    errors = process.stderr.read()
    assert process.wait() == code and "Traceback" not in errors and "BrokenPipe" not in errors, errors
    assert (tmp_path / "sweep" / "leaderboard.csv").read_text().count("finished") == 2 - code
    assert (tmp_path / "sweep" / "report.html").exists()


@pytest.mark.parametrize(
    "program, shown", [(["train.py"], "--help"), (["train.py"], "--cfg=job"), (["-m", "transfer_learning"], "--help")]
)
def test_help_and_config_that_nobody_reads_end_without_a_traceback(program, shown, monkeypatch):
    monkeypatch.chdir(PROJECT)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    command = [sys.executable, *program, shown]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # as `head` does
    assert process.stderr.read() == ""
    assert process.wait() == 1


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8:strict"])
def test_what_an_encoding_lacks_is_escaped(encoding):
    code = "from transfer_learning.cli.output import open_streams; open_streams(); print(chr(0x2013), chr(0xDCFF))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding.partition(":")[0]).strip().endswith("\\udcff")


def test_names_that_the_locale_cannot_write(tmp_path, write_image, in_shell):
    """As on Windows with cp1252, here with ASCII: files are UTF-8, and a terminal shows escapes."""
    rows = [(write_image(tmp_path / f"{seed}.png", seed), "猫狗"[seed % 2]) for seed in range(24)]
    table = "".join(f"{file},{label}\n" for file, label in rows)
    (tmp_path / "table.csv").write_text(f"file,label\n{table}", encoding="utf-8")
    data = [f"data.table={tmp_path}/table.csv", "data.file_column=file", "data.label_column=label"]
    data += ["data.train_per_class=6", "data.val_per_class=3", "data.test_per_class=3", "trainer.max_epochs=1"]
    where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache", "data=table"]
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "cp1252"}
    result = in_shell("-m", *TINY, *where, *data, "optimizer.lr=1e-3,1e30", **ascii_only)
    assert result.returncode == 1 and "UnicodeEncodeError" not in result.stderr, result.stderr
    assert "1 of 2 jobs" in result.stdout and "\\u732b" in result.stdout, result.stdout
    for log in (tmp_path / "sweep").glob("*/train.log"):
        assert "猫" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "message, of_run, of_verb",
    [
        ("GPU available: True (cuda), used: True", True, False),
        ("Using bfloat16 Automatic Mixed Precision (AMP)", True, False),
        ("TPU available: False, using: 0 TPU cores", False, False),
        ("💡 Tip: For seamless cloud logging, install litlogger", False, False),
        ("photos: no images of cat", True, True),
    ],
)
def test_notices_of_lightning_that_are_hidden(message, of_run, of_verb):
    record = logging.LogRecord("name", logging.INFO, "path", 1, message, None, None)
    assert (without_notices(record), without_notices(record) and without_device_notices(record)) == (of_run, of_verb)
