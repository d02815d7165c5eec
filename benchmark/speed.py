"""How fast the scripts and their peers train: one process at a time, one torch thread each.

The folder holds runs/<name>/, each a job's folder as in pool.py, where nothing is done twice;
and speed.csv, one row a run, and report.md, which are made anew from them.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import tyro

from . import pool
from .files import read_json, write_atomically, write_csv, write_json
from .grid import ROOT, Job, make_jobs
from .machine import cpu_model, installed_version
from .words import BadInput, number

PEER, BARE = "sb3-", "bare-"  # how the names of X's peer and of its bare environments begin
SIDES = {"": "ours", PEER: "peer", BARE: "bare"}
PARTS = {  # part -> the end of its contestants' names; its sides; the title of its table
    "pairs": ("", ("", PEER), "Equal hyperparameters, side by side"),
    "environments": ("-alone", (BARE,), "Environments alone, steps per second"),
    "num_envs": (
        "-sizes", ("", PEER, BARE), "Steps per second by num_envs, with which batches grow",
    ),
}  # fmt: skip
SIZES = {"environments": (1, 8), "num_envs": tuple(2**k for k in range(9))}  # of num_envs
COLUMNS = [
    "part", "env_id", "contestant", "num_envs", "seed", "steps/s", "script_sha256", "flags",
    "system", "load",
]  # fmt: skip
NOTE = """# Speed
Made by `python -m benchmark speed`: one process at a time, on the CPU, with one torch thread. n
is the number of repeats, each with one seed for all sides, which take turns to be first. Median
[lowest-highest]. Ratios are taken within each repeat; the true median ratio is within their
range with probability 1 - 2^(1-n). Steps are those of all environments together. Training is
timed without imports and evaluation. Bare environments get random actions: roughly the ceiling
of training, not a bound, as these end episodes early. A load far above 1 means that the machine
was shared."""


def make_plan(suite: dict, directory: Path, seeds: Iterable[int]) -> list[tuple[str, Job]]:
    """Parts and their jobs in the order in which they run: seeds are the outermost loop of each
    part, and every second of them turns the order round, so that a machine that slows down or
    speeds up does so for all alike."""
    plan: list[tuple[str, Job]] = []
    for seed in seeds:
        extra, new = ("--eval-episodes", "1"), []
        jobs = make_jobs(suite, directory / "runs", seeds=[seed], extra=extra)
        names = {(job.algorithm, job.env_id) for job in jobs}
        for job in jobs:
            part = find_part(job, names)
            for n in SIZES.get(part, [job.flags.get("num_envs", 0)]):  # 0: the script's own
                batch = job.flags.get("num_steps", 0) * n
                flags = {"num_envs": n, "total_timesteps": job.flags["total_timesteps"]}
                flags["total_timesteps"] = max(flags["total_timesteps"], 4 * batch)
                place = job.directory.with_name(f"{part}-{n}__{job.directory.name}")
                if part in SIZES:
                    new.append((part, replace(job, flags=job.flags | flags, directory=place)))
                else:
                    new.append((part, replace(job, directory=place)))
        # The sides of a comparison stand together.
        new.sort(key=lambda planned: planned[1].flags.get("num_envs", 0))
        plan += new if seed % 2 else new[::-1]
    return sorted(plan, key=lambda planned: list(PARTS).index(planned[0]))


def find_part(job: Job, names: set[tuple[str, str]]) -> str:
    """The part that a job belongs to by its name; refuses one that lacks a partner."""
    part = next(part for part in reversed(PARTS) if job.algorithm.endswith(PARTS[part][0]))
    script = job.algorithm.removeprefix(PEER).removeprefix(BARE)
    for name in (side + script for side in PARTS[part][1]):
        if (name, job.env_id) not in names:
            what = f"{job.algorithm} has no partner on {job.env_id}: the suite lacks {name}"
            raise BadInput(what)
    return part


def measure(part: str, job: Job) -> dict:
    """Run the job, unless that is done, and return its record."""
    with pool.claim(job) as over:
        if over:
            return {"status": over}
        if job.run_dir.exists():  # half a run cannot be timed
            pool.set_aside(job)
        words = pool.command(job)
        words[1:1] = ["-m", "benchmark.speed"] if job.algorithm.startswith(BARE) else []
        here = {"part": part, "cpu": cpu_model(), "load": round(os.getloadavg()[0], 2)}
        record = pool.new_record(job) | here
        pool.save_record(job, record)
        status, reason = pool.attempt(job, words, None, {"PYTHONPATH": str(ROOT)}, None)
        record |= {"status": status, "reason": reason}
        pool.save_record(job, record)
        return record


def speed(
    suite: dict, directory: Path, seed: int, repeats: int, only: list[str] | None
) -> list[tuple[Job, dict]]:
    """Measure what is not yet in `directory`, and report on all of it; return the jobs with
    their records."""
    seeds = set(range(seed + 1, seed + repeats + 1))
    ends = [path.name.split("__")[-1] for path in directory.glob("runs/*")]
    known = seeds | {int(end) for end in ends if end.isdecimal()}
    plan = make_plan(suite, directory.resolve(), sorted(known))
    todo = [(part, job) for part, job in plan if part in (only or PARTS) and job.seed in seeds]
    if not todo:
        raise BadInput(f"the suite has nothing for {' and '.join(only)}")
    for _, job in plan:  # all of them: one report must not mix scripts, flags or machines
        cpu = (read_json(job.directory / "job.json") or {}).get("cpu", cpu_model())
        differs = pool.differences(job) or ([] if cpu == cpu_model() else [f"on {cpu}"])
        if differs:
            what = f"{job.name} in {directory} was made otherwise: {'; '.join(differs)}"
            raise BadInput(f"{what}; name another --dir")
    check_folder(directory)
    records = []
    with pool.locked(directory / "runs") as mine:
        if not mine:
            raise BadInput(f"another invocation is measuring in {directory}")
        write_report(directory, read_rows(directory))  # speed.csv marks this command's folder
        try:
            for i, (part, job) in enumerate(todo, start=1):
                records.append((job, measure(part, job)))
                status = records[-1][1]["status"]
                print(f"{i}/{len(todo)} {job.name}: {status}", flush=True)
        finally:  # after an interruption too, the report is of all that has been measured
            write_report(directory, read_rows(directory))
    return records


def check_folder(directory: Path) -> None:
    """Refuse a folder that is not this command's, or whose speed.csv has more than its runs."""
    path = directory / "speed.csv"
    lines = map(str, directory.glob("*"))
    if path.exists():
        lines = path.read_text(errors="replace").splitlines()
    known = {tuple(map(str, row[:5])) for row in (COLUMNS, *read_rows(directory))}
    if directory.is_file() or {tuple(line.split(",")[:5]) for line in lines} - known:
        what = f"{directory} holds something else, or rows of which there are no runs"
        raise BadInput(f"{what}; name another --dir")


def read_rows(directory: Path) -> list[list]:
    """What speed.csv holds: a row for each run that is done."""
    rows = []
    for path in directory.glob("runs/*/run/summary.json"):
        places = (path, path.with_name("args.json"), path.parents[1] / "job.json")
        files = [read_json(place) for place in places]
        if not all(files):
            continue
        summary, args, job = files
        versions = [f"{name} {version}" for name, version in args["versions"].items()]
        rows.append([
            job["part"], job["env_id"], job["algorithm"], job["flags"].get("num_envs", 0),
            job["seed"], summary["sps"], args["script_sha256"],
            json.dumps(job["flags"]), ", ".join([job["cpu"], *versions]), job["load"],
        ])  # fmt: skip
    return sorted(rows, key=lambda row: row[:5])


def spread(values: np.ndarray, show: Callable[[float], str] = number) -> str:
    """'median [lowest-highest]', the only value, or '-' where there is none."""
    if not len(values):
        return "-"
    low, middle, high = map(show, (values.min(), np.median(values), values.max()))
    return middle if len(values) == 1 else f"{middle} [{low}-{high}]"


def compare(rows: list[list], part: str) -> list[list[str]]:
    """The lines of a part's table. A repeat counts where all sides of the line have it."""
    lines: dict[tuple, dict] = {}
    for _, env_id, name, n, seed, value in (row[:6] for row in rows if row[0] == part):
        script = name.removeprefix(PEER).removeprefix(BARE)
        key = (env_id, script, f"num_envs {n}" if part in SIZES else "steps/s")
        sides = lines.setdefault(key, {})
        sides.setdefault(name.removesuffix(script), {})[seed] = value
    table = []
    for key, found in lines.items():
        cells = [found.get(side, {}) for side in PARTS[part][1]]
        seeds = sorted(set.intersection(*map(set, cells)))
        sides = np.array([[cell[seed] for seed in seeds] for cell in cells])
        ratios = [spread(sides[0] / other, "{:.2f}".format) for other in sides[1:]]
        table.append([*key, str(len(seeds)), *map(spread, sides), *ratios])
    return table


def write_report(directory: Path, rows: list[list]) -> None:
    """Write speed.csv and report.md."""
    write_csv(directory / "speed.csv", COLUMNS, rows)
    load = f"Load: {spread(np.array([row[-1] for row in rows]))}."
    lines = [NOTE, "", *sorted({row[-2] for row in rows}), load]
    for part, (_, sides, title) in PARTS.items():
        if table := compare(rows, part):
            names = [SIDES[side] for side in sides]
            ratios = [f"{names[0]} / {name}" for name in names[1:]]
            head = ["environment", "script", "", "n", *names, *ratios]
            lines.append(f"\n## {title}\n")
            lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *table)]
    write_atomically(directory / "report.md", "\n".join([*lines, ""]).encode())


def bare(path: str, *words: str) -> None:
    """python -m benchmark.speed SCRIPT FLAGS: step a script's environments with random actions,
    in a run directory."""
    sys.path.insert(0, str(Path(path).parent))
    script = import_module(Path(path).stem)
    args = script.check_args(tyro.cli(script.Args, args=words))
    envs = [script.make_env(args) for _ in range(args.num_envs)]
    for i, env in enumerate(envs):
        env.reset(seed=args.seed + i)
        env.action_space.seed(args.seed + i)
    # Drawn beforehand, since that takes time.
    actions = cycle([[env.action_space.sample() for env in envs] for _ in range(1000)])
    count, start = max(args.total_timesteps // args.num_envs, 1), time.perf_counter()
    for action in islice(actions, count):
        for i, env in enumerate(envs):
            _, _, terminated, truncated, _ = env.step(action[i])
            if terminated or truncated:
                env.reset()
    steps, seconds = count * args.num_envs, time.perf_counter() - start
    modules = ("python", "torch", "gymnasium", "numpy")
    about = {"versions": {name: installed_version(name) for name in modules}}
    about["script_sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    args.run_dir.mkdir(parents=True)
    write_json(args.run_dir / "args.json", about)
    summary = {"global_step": steps, "sps": steps / seconds}
    write_json(args.run_dir / "summary.json", summary)


if __name__ == "__main__":
    bare(*sys.argv[1:])
