"""The end of a sweep: Hydra's callback that prints and writes the leaderboard."""

import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from transfer_learning.runs.leaderboard import jobs, markdown, table, write_leaderboard


class Leaderboard(Callback):
    """Exits with 1 unless all jobs in the folder of the sweep have finished."""

    def on_multirun_end(self, config: DictConfig, **_) -> None:
        folder = Path(config.hydra.sweep.dir)
        found = jobs(folder)
        finished = sum(job.state == "finished" for job in found)
        print(f"{markdown(table(found))}\n{finished} of {len(found)} jobs in {folder} finished", flush=True)
        try:
            write_leaderboard(folder, found)
        except OSError as error:  # Hydra would turn it into a warning
            sys.exit(str(error))
        if finished < len(found):
            sys.exit(1)
