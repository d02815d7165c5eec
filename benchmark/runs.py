"""Reads run directories: what was asked for, how it ended, and what it logged."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path

import gymnasium as gym
import numpy as np

from .events import EPISODES, read_log
from .files import read_json
from .stats import first_reached

TOGETHER = 8  # completions of which a script for tasks logs the mean return as one entry
EXACT = "eval/exact_success"
REAL = (int, float)
SUMMARY = {  # what summary.json must hold -> the types it may have
    "env_id": str, "script": str, "seed": int, "global_step": int, "wall_seconds": REAL,
    "sps": REAL, "train_return_mean": (*REAL, type(None)), "train_episodes": int,
    "eval_return_mean": REAL, "eval_return_std": REAL, "eval_episodes": int,
}  # fmt: skip
JOB = {"algorithm": str, "env_id": str, "seed": int}  # what a grid.json must say of each
NOT_COMPARED = {
    "seed", "run_dir", "resume", "log_interval", "checkpoint_interval", "torch_threads",
}  # fmt: skip


@dataclass
class Run:
    """The facts of one run, however it ended."""

    directory: Path
    algorithm: str
    env_id: str
    seed: int
    status: str  # done, failed, unfinished, missing or pruned
    reason: str = ""
    args: dict = field(default_factory=dict)  # args.json
    summary: dict = field(default_factory=dict)  # summary.json
    record: dict = field(default_factory=dict)  # job.json
    score_range: tuple[float, float] | None = None
    threshold: float | None = None  # the return that counts as solved: the suite's, or Gym's
    # By steps and by seconds: where its episodes ended, and their returns, (2, episodes).
    points: dict[str, np.ndarray] = field(default_factory=dict)
    # Steps and seconds to the threshold, infinite for never; None for unknown.
    reached: tuple[float, float] | None = None
    logged: dict[str, np.ndarray] = field(default_factory=dict)  # tag -> steps, values: (2, n)
    problems: list[str] = field(default_factory=list)

    @property
    def cell(self) -> tuple[str, str]:
        """What its seeds stand together under in a table."""
        return self.algorithm, self.env_id

    @property
    def has_curve(self) -> bool:
        """Whether all its episodes are known."""
        return self.status == "done" and "steps" in self.points

    @property
    def is_task(self) -> bool:
        """Whether it trained a language model on a task: a completion is an episode and one
        step."""
        return "task" in self.args

    @property
    def further(self) -> dict:
        """The numbers of its summary that not every script has."""
        others = {name: x for name, x in self.summary.items() if name not in SUMMARY}
        return {name: x for name, x in others.items() if type(x) in REAL and isfinite(x)}

    def score(self, value: float | np.ndarray) -> float | np.ndarray:
        """Returns on the environment's scale from 0 to 1; NaN where it has no scale."""
        low, high = self.score_range or (float("nan"),) * 2
        return (value - low) / (high - low)

    @property
    def base(self) -> tuple:
        """What made the base model of a language model's run."""
        return self.args.get("base_model"), self.args.get("task_kwargs", "{}")

    def flags(self) -> dict:
        """The flags that belong to the algorithm."""
        others = {"script", "script_sha256", "versions", "device"} | NOT_COMPARED
        return {name: value for name, value in self.args.items() if name not in others}

    def shared_flags(self) -> dict:
        """Those that runs of one algorithm should share: all but the base model's seed."""
        flags = self.flags()
        if "task_kwargs" in flags:
            kwargs = json.loads(flags["task_kwargs"])
            flags["task_kwargs"] = json.dumps(kwargs | {"base_seed": 0})
        return flags


# ==============================================================================================
# Run directories
# ==============================================================================================
def wrong_layout(value: dict | None, required: dict) -> str:
    """What keeps a JSON object from holding the `required` keys with values of their types; ""
    for nothing."""
    if value is None:
        return "is missing or no JSON object"
    if missing := [key for key in required if key not in value]:
        return f"lacks {', '.join(missing)}"

    def fits(x: object, kind: type | tuple) -> bool:
        return isinstance(x, kind) and not (isinstance(x, float) and not isfinite(x))

    wrong = [key for key, kind in required.items() if not fits(value[key], kind)]
    return f"has a strange {', '.join(wrong)}" if wrong else ""


def read_run(directory: Path, job: dict | None, tags: Sequence[str] = ()) -> Run | str:
    """The run in `directory`, made by the `job` of that record, or by hand, with what it logged
    under `tags`; a sentence where it is of a foreign layout.

    With a job, even a run that left nothing behind is a Run: it failed, or it is unfinished.
    """
    args, summary = (read_json(directory / f"{name}.json") for name in ("args", "summary"))
    if job is None:
        name = "task" if args and "task" in args else "env_id"
        if wrong := wrong_layout(args, {name: str, "seed": int, "script": str}):
            return f"no run directory of these scripts: args.json {wrong}"
        job = {"algorithm": Path(args["script"]).stem, "env_id": args[name], "status": ""}
        job["seed"] = args["seed"]
    elif wrong := wrong_layout(job, JOB | {"status": str, "reason": str}):
        return f"no job of this benchmark: job.json {wrong}"
    about = job["algorithm"], job["env_id"], job["seed"]
    run = Run(directory, *about, "unfinished", args=args or {}, record=job)
    run.score_range, run.threshold = job.get("score_range"), job.get("threshold")
    if run.threshold is None:
        run.threshold = registered_threshold(run.env_id)
    if (directory / "summary.json").exists():
        if wrong := wrong_layout(summary, SUMMARY):
            run.status, run.reason = "failed", f"summary.json {wrong}"
        else:
            run.status, run.summary = "done", summary
    elif job["status"] in ("failed", "pruned"):
        run.status, run.reason = job["status"], job["reason"]
    if directory.is_dir():
        read_episodes(run, tags)
    return run


def read_episodes(run: Run, tags: Sequence[str]) -> None:
    """Give the run its episodes, when it reached the threshold, and what it logged under
    `tags`; or a problem."""
    try:
        log, run.problems = read_log(run.directory, [EXACT, *tags])
    except OSError as error:
        log, run.problems = {}, [f"its event files cannot be read: {error.strerror}"]
    episodes = log.get(EPISODES, np.zeros((3, 0)))
    if run.is_task:  # every completion gets the mean return of those that were logged with it
        counts = np.clip(np.diff(episodes[0], prepend=0), 0, TOGETHER).astype(int)
        episodes = np.repeat(episodes, counts, axis=1)
    # Half a curve would pass for a run that stopped learning. A whole one may still stand in a
    # damaged file: what is lost at the end of a session that was killed, the next one has
    # disowned.
    if run.status == "done" and episodes.shape[1] != run.summary["train_episodes"]:
        run.problems.append(
            f"its event files hold {episodes.shape[1]} of its {run.summary['train_episodes']} "
            "episodes; its summary is used, its learning curve is not"
        )
    elif episodes.size:
        run.points = {"steps": episodes[[0, 2]], "seconds": episodes[1:]}
        run.reached = reached(run.threshold, episodes, log[EXACT])
        for tag in tags:
            if log[tag].size:  # as in logged.csv
                run.logged[tag] = np.array([(x, float(f"{y:.6g}")) for x, _, y in log[tag].T]).T


def registered_threshold(env_id: str) -> float | None:
    """The return at which Gymnasium counts the environment as solved, if it names one."""
    return gym.registry[env_id].reward_threshold if env_id in gym.registry else None


def reached(
    threshold: float | None, episodes: np.ndarray, exact: np.ndarray
) -> tuple[float, float] | None:
    """Steps and seconds until the last 100 training episodes averaged the threshold, or, where
    a run logs its exact success, until that was as high; infinite where they never did. Both
    arrays: steps, seconds, values, (3, n)."""
    if threshold is None:
        return None
    if exact.size:
        passed = np.flatnonzero(exact[2] >= threshold)
        return (exact[0, passed[0]], exact[1, passed[0]]) if len(passed) else (inf, inf)
    index = first_reached(episodes[2], threshold)
    return (inf, inf) if index is None else tuple(map(float, episodes[:2, index]))


def find_runs(root: Path, tags: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """All runs under `root`, sorted, with what they logged under `tags`, and sentences on what
    was found there but could not be used.

    Runs of a suite are known by their job.json, others by args.json; both may lie at any depth.
    What a grid.json there names and nobody began is missing.
    """
    found: list[tuple[Path, Run | str]] = []
    for folder, folders, files in os.walk(root):
        directory = Path(folder)
        if "job.json" in files:
            job = read_json(directory / "job.json") or {}
            found.append((directory, read_run(directory / "run", job, tags)))
        elif "args.json" in files:
            found.append((directory, read_run(directory, None, tags)))
        elif any(name.startswith("events.out.tfevents") for name in files):
            what = "no run directory of these scripts: event files but no args.json"
            found.append((directory, what))
        else:
            found += missing_runs(directory)
            folders.sort()
            continue
        folders.clear()
    runs = [run for _, run in found if isinstance(run, Run)]
    places = [(place, what) for place, what in found if isinstance(what, str)]
    places += [(run.directory, problem) for run in runs for problem in run.problems]
    problems = [f"{place.relative_to(root)}: {what}" for place, what in places]
    runs.sort(key=lambda run: (run.env_id, run.algorithm, run.seed, str(run.directory)))
    return runs, problems + mixtures(runs)


def missing_runs(directory: Path) -> list[tuple[Path, Run | str]]:
    """The runs that a grid.json in the folder names and nobody began."""
    found, path = [], directory / "grid.json"
    for name, job in (read_json(path) or {}).items():
        if (directory / name / "job.json").exists():
            continue
        if wrong := wrong_layout(job if isinstance(job, dict) else None, JOB):
            found.append((path, f"{name} {wrong}"))
        else:
            about = (job[key] for key in JOB)
            found.append((path, Run(directory / name, *about, "missing", "never begun")))
    return found


def grouped(runs: list[Run], *names: str) -> dict:
    """The runs by the first of these attributes, those of each of its values by the next, and
    so on."""
    groups: dict = {}
    for run in runs:
        groups.setdefault(getattr(run, names[0]), []).append(run)
    if not names[1:]:
        return groups
    return {value: grouped(members, *names[1:]) for value, members in groups.items()}


def done(runs: list[Run]) -> list[Run]:
    """The runs that ended well, whose returns count."""
    return [run for run in runs if run.status == "done"]


def mixtures(runs: list[Run]) -> list[str]:
    """Sentences on runs that stand under one name but should not be averaged: other flags, or
    one seed twice."""
    problems = []
    for (algorithm, env_id), members in grouped(done(runs), "cell").items():
        cell, flags = f"{algorithm} on {env_id}", [run.shared_flags() for run in members]
        for name in sorted({name for one in flags for name in one}):
            values = sorted({str(one.get(name)) for one in flags})
            if len(values) > 1:
                what = f"mixes runs with different {name}: {', '.join(values)}"
                problems.append(f"{cell} {what}")
        if len({run.args.get("script_sha256") for run in members}) > 1:
            problems.append(f"{cell} mixes runs of different versions of the script")
        seeds = [run.seed for run in members]
        for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            what = f"has seed {seed} {seeds.count(seed)} times; all of them count"
            problems.append(f"{cell} {what}")
    return problems
