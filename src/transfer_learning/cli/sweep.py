"""Hydra's callback for sweeps: a check before the jobs, and after them the leaderboard and the report."""

import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from transfer_learning.cli.errors import one_line
from transfer_learning.cli.output import ignore_broken_pipe
from transfer_learning.cli.project import REPLICATES
from transfer_learning.cli.verbs import report
from transfer_learning.runs.leaderboard import leaderboard_text, read_jobs, write_leaderboard

NO_TRIAL_FINISHED = "No trials are completed yet."  # Optuna's error, after those of the jobs


class Leaderboard(Callback):
    """Exits with 1 unless all jobs in the folder of the sweep have finished and the leaderboard could be written."""

    def on_multirun_start(self, config: DictConfig, **_) -> None:
        """Exits with 1 if a negative `n_jobs` of joblib's means more jobs at a time than there are GPUs."""
        n_jobs = OmegaConf.select(config, "hydra.launcher.n_jobs") or 1
        if n_jobs < 0:
            check_workers(n_jobs, OmegaConf.select(config, "trainer.accelerator"))

    def on_multirun_end(self, config: DictConfig, **_) -> None:
        error = sys.exc_info()[1]  # Hydra 1.4 calls this also if an error has stopped the sweep, and reports the error
        if error and str(error) != NO_TRIAL_FINISHED:
            return
        try:
            complete = write(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would turn it into a warning
            sys.exit(f"no leaderboard, {type(error).__name__}: {one_line(error)}")
        if not complete:
            sys.exit(1)


def check_workers(n_jobs: int, accelerator: str) -> None:
    """Exits with 1 if a negative `n_jobs`, which joblib adds to the number of cores, is too many for the GPUs."""
    from joblib import effective_n_jobs

    from transfer_learning.utilities.hardware import count_gpus  # imports torch

    workers, gpus = effective_n_jobs(n_jobs), count_gpus(accelerator)
    if 0 < gpus < workers:
        ways = f"expected {gpus}, or a larger number if jobs shall share a GPU, or trainer=cpu"
        sys.exit(f"hydra.launcher.n_jobs={n_jobs}: {workers} jobs at a time, but GPUs: {gpus}; {ways}.")


def write(folder: Path) -> bool:
    """Prints and writes the leaderboard and the report of a sweep. Returns whether all have finished, if any."""
    jobs = read_jobs(folder)
    finished = sum(job.state == "finished" for job in jobs)
    with ignore_broken_pipe():
        print(f"{leaderboard_text(jobs, REPLICATES)}\n{finished} of {len(jobs)} jobs in {folder} finished", flush=True)
    write_leaderboard(folder, jobs, REPLICATES)
    try:
        report.write([folder], folder / "report.html")
        end = f"report: {folder / 'report.html'}"
    except Exception as error:  # the results are complete without it
        end = f"no report, {type(error).__name__}: {one_line(error)}"
    with ignore_broken_pipe():
        print(end, flush=True)
    return finished == len(jobs) > 0
