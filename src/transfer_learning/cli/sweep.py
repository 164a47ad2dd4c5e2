"""The end of a sweep: Hydra's callback that prints and writes the leaderboard and the report."""

import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from transfer_learning.cli.errors import one_line
from transfer_learning.cli.output import ignore_broken_pipe
from transfer_learning.cli.resolvers import REPLICATES
from transfer_learning.cli.verbs import report
from transfer_learning.runs.leaderboard import jobs, text, write_leaderboard


class Leaderboard(Callback):
    """Exits with 1 unless all jobs in the folder of the sweep have finished and the leaderboard could be written."""

    def on_multirun_end(self, config: DictConfig, **_) -> None:
        try:
            complete = write(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would turn it into a warning
            sys.exit(f"no leaderboard, {type(error).__name__}: {one_line(error)}")
        if not complete:
            sys.exit(1)


def write(folder: Path) -> bool:
    """Prints and writes the leaderboard and the report of a sweep. Returns whether all have finished, if any."""
    found = jobs(folder)
    finished = sum(job.state == "finished" for job in found)
    with ignore_broken_pipe():
        print(f"{text(found, REPLICATES)}\n{finished} of {len(found)} jobs in {folder} finished", flush=True)
    write_leaderboard(folder, found, REPLICATES)
    try:
        report.write([folder], folder / "report.html")
        end = f"report: {folder / 'report.html'}"
    except Exception as error:  # the results are complete without it
        end = f"no report, {type(error).__name__}: {one_line(error)}"
    with ignore_broken_pipe():
        print(end, flush=True)
    return finished == len(found) > 0
