"""How fast the scripts and their peers train: one process at a time, one torch thread each.

The folder holds runs/<name>/, each a job's folder as in pool.py, where nothing is done twice;
and speed.csv, one row a run, and report.md, which are made anew from them.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import pool
from .files import read_json, write_atomically, write_csv
from .grid import Job, make_jobs
from .machine import cpu_model
from .words import BadInput, number

PEER = "sb3-"  # how the name of X's peer begins
PARTS = {  # part -> the end of its contestants' names, and the title of its table
    "pairs": ("", "Equal hyperparameters, side by side"),
    "num_envs": ("-sizes", "Steps per second by num_envs, with which batches grow"),
}
SIZES = [2**k for k in range(9)]  # of num_envs
COLUMNS = [
    "part", "env_id", "contestant", "num_envs", "seed", "steps/s", "script_sha256", "flags",
    "system", "load",
]  # fmt: skip
NOTE = """# Speed
Made by `python -m benchmark speed`: one process at a time, on the CPU, with one torch thread. n
is the number of repeats, each with one seed for all sides, which take turns to be first. Median
[lowest-highest]. Ratios are taken within each repeat; the true median ratio is within their
range with probability 1 - 2^(1-n). Steps are those of all environments together. Training is
timed without imports and evaluation. A load far above 1 means that the machine was shared."""


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
            given = [job.flags.get("num_envs", 0)]  # 0: the script's own
            for n in SIZES if part == "num_envs" else given:
                batch = job.flags.get("num_steps", 0) * n
                flags = {"num_envs": n, "total_timesteps": job.flags["total_timesteps"]}
                flags["total_timesteps"] = max(flags["total_timesteps"], 4 * batch)
                place = job.directory.with_name(f"{part}-{n}__{job.directory.name}")
                if part == "num_envs":
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
    script = job.algorithm.removeprefix(PEER)
    for name in (script, PEER + script):
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
        here = {"part": part, "cpu": cpu_model(), "load": round(os.getloadavg()[0], 2)}
        record = pool.new_record(job) | here
        pool.save_record(job, record)
        status, reason = pool.attempt(job, pool.command(job), None, {}, None)
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
        script = name.removeprefix(PEER)
        key = (env_id, script, f"num_envs {n}" if part == "num_envs" else "steps/s")
        lines.setdefault(key, ({}, {}))[name.startswith(PEER)][seed] = value
    table = []
    for key, cells in lines.items():
        seeds = sorted(cells[0].keys() & cells[1].keys())
        ours, peers = (np.array([cell[seed] for seed in seeds]) for cell in cells)
        ratio = spread(ours / peers, "{:.2f}".format)
        table.append([*key, str(len(seeds)), spread(ours), spread(peers), ratio])
    return table


def write_report(directory: Path, rows: list[list]) -> None:
    """Write speed.csv and report.md."""
    write_csv(directory / "speed.csv", COLUMNS, rows)
    load = f"Load: {spread(np.array([row[-1] for row in rows]))}."
    lines = [NOTE, "", *sorted({row[-2] for row in rows}), load]
    head = ["environment", "script", "", "n", "ours", "peer", "ours / peer"]
    for part, (_, title) in PARTS.items():
        if table := compare(rows, part):
            lines.append(f"\n## {title}\n")
            lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *table)]
    write_atomically(directory / "report.md", "\n".join([*lines, ""]).encode())
