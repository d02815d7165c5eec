"""Why trpo_continuous.py learns faster on the way than SB3-contrib's TRPO in `peers`: it scales
actions from [-1, 1] to the environment's bounds, and the peer acts in the environment's units.
Here the peer's actions are scaled as ours are.

python -m benchmark.results.peers.scaled
"""

from pathlib import Path

import gymnasium as gym

from benchmark.files import read_csv, write_csv
from benchmark.grid import load_suite, make_jobs
from benchmark.machine import cpus
from benchmark.pool import run_local, save_grid
from benchmark.report import write_report

ENV_ID = "benchmark.results.peers.scaled:ScaledPendulum-v0"
PEER = "sb3-trpo_continuous"
COLUMNS = ["seed", "eval_return_mean", "curve_mean", "commit", "script_sha256"]


def scaled_pendulum(**kwargs: object) -> gym.Env:
    """Pendulum-v1 with actions in [-1, 1]."""
    return gym.wrappers.RescaleAction(gym.make("Pendulum-v1", **kwargs), -1.0, 1.0)


gym.register("ScaledPendulum-v0", scaled_pendulum)


def main() -> None:
    suite = load_suite("peers")
    peer = suite["algorithms"][PEER]
    flags = peer["flags"] | {"init_std": peer["flags"]["init_std"] / 2}  # the bounds are +-2
    directory = Path("runs/benchmark/peers-scaled").resolve()
    jobs = make_jobs(suite | {
        "environments": {ENV_ID: suite["environments"]["Pendulum-v1"]},
        "algorithms": {PEER: {"script": peer["script"], "flags": flags}},
    }, directory)  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    save_grid(directory, jobs)
    run_local(jobs, lambda job, record, _: print(job.name, record["status"]), cpus())
    write_report(directory, directory / "report")
    rows = read_csv(directory / "report" / "results.csv")
    found = [[row[name] for name in COLUMNS] for row in rows]
    write_csv(Path(__file__).with_name("scaled.csv"), COLUMNS, found)


if __name__ == "__main__":
    main()
