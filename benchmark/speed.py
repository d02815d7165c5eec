"""How fast the scripts and their peers train, and where the time goes: one process at a time, one torch thread each.

The folder holds
    speed.csv         one row a measurement, and one for each of its quantities; what stands there is not measured again
    report.md         the tables, with num_envs.png and .svg
    runs/<name>/      log.txt and the run directory of each measurement
"""

import csv
import fcntl
import hashlib
import io
import math
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from .grid import ROOT, BadInput, Job, did_you_mean, make_jobs
from .pool import attempt, command, cpu_model, installed_version, last_lines, read_json, set_aside
from .report import reached, threshold, write_csv
from .runs import read_run
from .speed_report import BARE, BEST, PEER, SHARE, to_number, write_report

PARTS = ("pairs", "threshold", "shares", "environments", "num_envs")
COLUMNS = ["part", "env_id", "contestant", "repeat", "seed", "num_envs", "quantity", "value", "unit",
           "script_sha256", "flags", "system", "load"]  # fmt: skip
GROUP = ("part", "env_id", "contestant", "num_envs")  # measurements that differ in the repeat only
UNITS = {"steps_per_second": "steps/s", "steps_to_threshold": "steps", "seconds_to_threshold": "s"}
MEASURE = Path(__file__).resolve().parent / "measure.py"
BARE_STEPS = 50_000  # of a bare environment: seconds for the slowest
BARE_ENVIRONMENTS = {  # -> the script that trains in it, whose make_envs is measured
    "CartPole-v1": "ppo.py", "Acrobot-v1": "ppo.py", "LunarLander-v3": "ppo.py", "Pendulum-v1": "ppo_continuous.py",
    "HalfCheetah-v5": "ppo_continuous.py", "Hopper-v5": "ppo_continuous.py", "Walker2d-v5": "ppo_continuous.py",
}  # fmt: skip
BARE_NUM_ENVS = (1, 8)
NUM_ENVS = tuple(2**k for k in range(9))
NUM_ENVS_STEPS = 8192  # of a run over --num-envs, and at least four iterations


class Failed(Exception):
    """A measurement did not succeed: why, and the end of its log."""

    def __init__(self, job: Job, reason: str):
        log = "".join(f"\n    {line}" for line in last_lines(job))
        super().__init__(f"{job.name}: {reason}; log: {job.directory / 'log.txt'}{log}")
        self.refused = reason == "exit status 2"


@dataclass(frozen=True)
class Measurement:
    """One process to run and time."""

    part: str
    repeat: int  # from 1
    job: Job

    def words(self) -> list[str]:
        """The command line."""
        words = command(self.job)
        what = "shares" if self.part == "shares" else "bare" if self.job.algorithm == BARE else None
        return [words[0], str(MEASURE), what, *words[1:]] if what else words

    def row(self) -> dict[str, str]:
        """What its rows say before it is run: all COLUMNS but those of the result."""
        job = self.job
        files = [path for path in (MEASURE, job.script) if str(path) in self.words()]
        flags = shlex.join(replace(job, env_id="", seed=0).words()[4:])
        return {
            "part": self.part, "env_id": job.env_id, "contestant": job.algorithm, "repeat": str(self.repeat),
            "seed": str(job.seed), "num_envs": str(job.flags.get("num_envs", "")), "flags": flags,
            "script_sha256": hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest(),
            "system": system(),
        }  # fmt: skip


@cache
def system() -> str:
    """The processor and the versions that a timing depends on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("python", "torch", "gymnasium", "numpy", "mujoco", "stable_baselines3", "sb3_contrib")
    versions = [f"{name} {installed_version(name)}" for name in packages if installed_version(name)]
    return f"{cpu_model()}, {cpus} CPUs; {', '.join(versions)}"


# ======================================================================================================================
# What to measure
# ======================================================================================================================
def make_plan(suite: dict, directory: Path, seed: int, repeats: int) -> list[Measurement]:
    """Every measurement in the order in which they are made.

    Repeats are the outermost loop of each part, and contestants change places with each of them: a machine that slows
    down or speeds up does so for all alike.
    """
    plan: list[Measurement] = []

    def add(part: str, repeat: int, jobs: list[Job]) -> None:
        for job in jobs if repeat % 2 else jobs[::-1]:
            name = f"{part}__{job.env_id}__{job.algorithm}__{job.flags.get('num_envs', 'default')}__{repeat}"
            folder = directory / "runs" / name.replace("/", "_").replace(":", "_")
            plan.append(Measurement(part, repeat, replace(job, directory=folder)))

    for repeat in range(1, repeats + 1):
        made = make_jobs(suite, directory, seeds=[seed + repeat], extra=("--eval-episodes", "1"))
        jobs = {(job.algorithm, job.env_id): job for job in made}
        for (name, env_id), job in jobs.items():
            if name.endswith(SHARE):
                add("shares", repeat, [job])
                continue
            partner = name.removeprefix(PEER) if name.startswith(PEER) else PEER + name
            if (partner, env_id) not in jobs:
                raise BadInput(f"{name} has no partner on {env_id}: the suite lacks {partner}")
            if name.endswith(BEST) and threshold(env_id) is None:
                raise BadInput(f"Gymnasium names no threshold for {env_id}, so {name} has nothing to reach")
            if not name.startswith(PEER):
                add("threshold" if name.endswith(BEST) else "pairs", repeat, [job, jobs[partner, env_id]])
        for env_id, script in BARE_ENVIRONMENTS.items():
            for num_envs in BARE_NUM_ENVS:
                add("environments", repeat, [bare_job(env_id, script, num_envs, seed + repeat)])
        env_id = next((env_id for name, env_id in jobs if name == "ppo"), None)
        for num_envs in NUM_ENVS if env_id else ():
            runs = [jobs[name, env_id] for name in ("ppo", PEER + "ppo")]
            steps = max(NUM_ENVS_STEPS, 4 * runs[0].flags.get("num_steps", 128) * num_envs)
            runs = [replace(job, flags=job.flags | {"num_envs": num_envs, "total_timesteps": steps}) for job in runs]
            add("num_envs", repeat, [*runs, bare_job(env_id, "ppo.py", num_envs, seed + repeat)])
    return sorted(plan, key=lambda one: PARTS.index(one.part))  # a stable sort


def bare_job(env_id: str, script: str, num_envs: int, seed: int) -> Job:
    """The environments alone, as the script makes them."""
    flags = {"num_envs": num_envs, "total_timesteps": BARE_STEPS, "torch_threads": 1}
    return Job(BARE, ROOT / script, env_id, seed, flags, (), None, Path())


# ======================================================================================================================
# What has been measured
# ======================================================================================================================
def load_rows(path: Path) -> list[dict[str, str]]:
    """The rows of speed.csv; none where there is no such file yet. Refuses a folder that is not this command's."""
    if not path.exists():
        if path.parent.exists() and (not path.parent.is_dir() or any(path.parent.iterdir())):
            raise BadInput(f"{path.parent} is not empty and has no {path.name}; name another --dir")
        return []
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        rows = list(reader)
        if reader.fieldnames != COLUMNS or any(None in row or None in row.values() for row in rows):
            raise ValueError
        for row in rows:
            to_number(row["value"]), int(row["repeat"]), int(row["num_envs"] or 0), float(row["load"])
    except (ValueError, csv.Error):
        raise BadInput(f"{path} is no table of this command, or damaged; name another --dir") from None
    return rows


def refuse_mixture(rows: list[dict[str, str]], plan: list[Measurement], path: Path) -> None:
    """Refuse rows that this command would make otherwise: one table must not mix scripts, flags or machines."""
    expected = {}
    for one in plan:
        if one.repeat == 1:
            row = one.row()
            expected[tuple(row[name] for name in GROUP)] = row | {"first": int(row["seed"]) - 1}
    for row in rows:
        what = f"{path} holds {row['contestant']} on {row['env_id']} ({row['part']})"
        now = expected.get(tuple(row[name] for name in GROUP))
        if now is None:
            raise BadInput(f"{what}, which these flags would not measure; name another --dir")
        now = now | {"seed": str(now["first"] + int(row["repeat"]))}
        words = {"script_sha256": "another script", "flags": "other flags", "seed": "another seed",
                 "system": "another machine or other versions"}  # fmt: skip
        differs = [word for name, word in words.items() if row[name] != now[name]]
        if differs:
            raise BadInput(f"{what} measured with {', '.join(differs)}; name another --dir")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it with the process. Two invocations would slow each other down."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise BadInput(f"cannot use {directory}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BadInput(f"another invocation is measuring in {directory}") from None
    finally:
        os.close(handle)


def measure(one: Measurement) -> list[dict[str, str]]:
    """Run the process; return its rows. Raises Failed."""
    job, known = one.job, one.row() | {"load": f"{os.getloadavg()[0]:.2f}"}
    job.directory.mkdir(parents=True, exist_ok=True)
    if job.run_dir.exists():  # of an invocation that was stopped: half a run cannot be timed
        set_aside(job)
    status, reason = attempt(job, one.words(), None, {}, None)
    summary = read_json(job.run_dir / "summary.json") or {}
    shares = read_json(job.run_dir / "shares.json") if one.part == "shares" else {}
    if status != "done" or "sps" not in summary or shares is None:
        raise Failed(job, reason or "it left no result")
    values = {"steps_per_second": summary["sps"]} | shares
    if one.part == "threshold":
        run = read_run(job.run_dir, None)
        if isinstance(run, str) or run.problems:
            raise Failed(job, run if isinstance(run, str) else run.problems[0])
        values |= dict(zip(("steps_to_threshold", "seconds_to_threshold"), reached(run), strict=True))
    return [
        known
        | {
            "quantity": name,
            "value": f"{value:.6g}" if math.isfinite(value) else "never",
            "unit": UNITS.get(name, "share of training"),
        }
        for name, value in values.items()
    ]


def speed(suite: dict, directory: Path, seed: int, repeats: int, only: list[str] | None) -> int:
    """Measure what is not yet in `directory`, and report on all of it; return the exit status."""
    for part in only or ():
        if part not in PARTS:
            raise BadInput(f"--only {part}: there is no such part; {did_you_mean(part, list(PARTS))}")
    path, absent = directory / "speed.csv", set()
    plan = make_plan(suite, directory.resolve(), seed, repeats)
    wanted = [one for one in plan if one.part in (only or PARTS)]
    if not wanted:
        raise BadInput(f"the suite has nothing for {', '.join(only)}")
    load_rows(path)  # refuse the folder before anything is made in it
    with locked(directory):
        rows = load_rows(path)
        refuse_mixture(rows, plan, path)
        if not rows:
            save_rows(path, rows)  # an empty table marks the folder as this command's
        done = {(*(row[name] for name in GROUP), row["repeat"]) for row in rows}
        try:
            for i, one in enumerate(wanted, start=1):
                row = one.row()
                if (*(row[name] for name in GROUP), row["repeat"]) in done or one.job.env_id in absent:
                    continue
                try:
                    new = measure(one)
                except Failed as failure:
                    if one.part == "environments" and failure.refused:  # it is not installed, the others may be
                        absent.add(one.job.env_id)
                        print(f"{i}/{len(wanted)} {one.job.name}: {last_lines(one.job)[-1]}", flush=True)
                        continue
                    print(f"failed: {failure}", file=sys.stderr)
                    return 1
                rows += new
                save_rows(path, rows)
                shown = "; ".join(f"{row['quantity']} {row['value']}" for row in new)
                print(f"{i}/{len(wanted)} {one.job.name}: {shown}", flush=True)
        finally:  # after a failure and an interruption too, the report is of all that has been measured
            if rows:
                write_report(directory, rows, absent)
        if not rows:
            raise BadInput("nothing could be measured")
    print(f"{len(rows)} rows: {directory / 'report.md'}")
    return 0


def save_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write speed.csv anew: a kill never leaves half a row."""
    write_csv(path, COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
