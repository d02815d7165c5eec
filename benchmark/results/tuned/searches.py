"""With flags that were searched alike, who is best? One budget of trials and steps for every
script on an environment; then, on other seeds, the best trial beside the script's own flags and
those of the suites, where these are others.

python -m benchmark.results.tuned.searches    # goes on where it was stopped
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmark.files import read_json, write_csv, write_json
from benchmark.grid import load_suite, make_jobs
from benchmark.machine import cpus
from benchmark.pool import run_local
from benchmark.report import write_report
from benchmark.runs import find_runs
from benchmark.tune import curve

RUNS = Path("runs/benchmark").resolve()
PLACES = {  # environment: its suite and the steps of a run
    "CartPole-v1": ("classic", 100_000),
    "Acrobot-v1": ("classic", 100_000),
    "Pendulum-v1": ("continuous", 100_000),
    "LunarLander-v3": ("classic", 200_000),
}
BUDGET = ["--trials", "16", "--seeds", "1000-1001", "--fresh-seeds", "1-10"]
NO_FLAGS = {"source", "total_timesteps", "eval_episodes"}  # what changes nothing in learning
COMMON = ("total_timesteps", "torch_threads")
COLUMNS = ["env_id", "script", "trial", "seed", "status", "area", "flags"]


def main() -> None:
    rows = []
    for env_id, (suite_name, steps) in PLACES.items():
        suite, directory, grid = load_suite(suite_name), RUNS / f"tuned-{env_id}", {}
        directory.mkdir(parents=True, exist_ok=True)
        for script in suite["algorithms"]:
            words = ["tune", script, "--env-id", env_id, "--steps", str(steps), *BUDGET]
            subprocess.run([sys.executable, "-m", "benchmark", *words], check=True)
            search = RUNS / f"tune-{script}-{env_id}"
            for run in find_runs(search / "search")[0]:
                done = run.status == "done"
                area = curve(run.points["steps"], steps).mean() if done else ""
                flags = {k: v for k, v in run.record["flags"].items() if k not in COMMON}
                about = [run.algorithm, run.seed, run.status, area, json.dumps(flags)]
                rows.append([env_id, f"{script}.py", *about])
            for job, about in read_json(search / "fresh" / "grid.json").items():
                grid[job] = about
                shutil.rmtree(directory / job, ignore_errors=True)
                leave = shutil.ignore_patterns("superseded-*")
                shutil.copytree(search / "fresh" / job, directory / job, ignore=leave)
        # The flags of the suite, with the steps of the searches.
        own = {
            f"{script}-suite": {env_id: flags}
            for script, several in suite["tuned"].items()
            if (flags := several.get(env_id, {})).keys() - NO_FLAGS
        }
        if own:  # on CartPole-v1 the suite has the scripts' own flags
            jobs = make_jobs(suite | {
                "environments": {env_id: {}}, "tuned": own, "seeds": list(range(1, 11)),
                "algorithms": {x: suite["algorithms"][x.removesuffix("-suite")] for x in own},
            }, directory, total_timesteps=steps)  # fmt: skip
            run_local(jobs, lambda job, record, _: print(job.name, record["status"]), cpus())
            for job in jobs:
                about = {"algorithm": job.algorithm, "env_id": env_id, "seed": job.seed}
                grid[job.name] = about
        write_json(directory / "grid.json", grid)
        write_report(directory, directory / "report")
    write_csv(Path(__file__).with_name("searches.csv"), COLUMNS, rows)


if __name__ == "__main__":
    main()
