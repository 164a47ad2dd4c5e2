"""The end of a sweep: Hydra's callback that prints and writes the leaderboard and the report."""

import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from transfer_learning.cli.errors import one_line
from transfer_learning.cli.resolvers import REPLICATES
from transfer_learning.cli.verbs import report
from transfer_learning.runs.leaderboard import jobs, text, write_leaderboard


class Leaderboard(Callback):
    """Exits with 1 unless all jobs in the folder of the sweep have finished."""

    def on_multirun_end(self, config: DictConfig, **_) -> None:
        folder = Path(config.hydra.sweep.dir)
        found = jobs(folder)
        finished = sum(job.state == "finished" for job in found)
        print(f"{text(found, REPLICATES)}\n{finished} of {len(found)} jobs in {folder} finished", flush=True)
        try:
            write_leaderboard(folder, found, REPLICATES)
        except OSError as error:  # Hydra would turn it into a warning
            sys.exit(str(error))
        try:
            report.write([folder], folder / "report.html")
            print(f"report: {folder / 'report.html'}", flush=True)
        except Exception as error:  # the results are complete without it
            print(f"no report, {type(error).__name__}: {one_line(error)}", flush=True)
        if finished < len(found):
            sys.exit(1)
