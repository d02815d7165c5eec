"""Reads run directories: what was asked for, how it ended, and the episodes in the event files."""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from math import inf, isfinite
from pathlib import Path

import google_crc32c
import gymnasium as gym
import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from .pool import read_json
from .stats import first_reached

EPISODES = "charts/episodic_return"
TOGETHER = 8  # scripts that train on a task log the mean return of so many completions as one entry
EXACT = "eval/exact_success"
SUMMARY = {  # what summary.json must hold -> the types it may have
    "env_id": str, "script": str, "seed": int, "global_step": int, "wall_seconds": (int, float), "sps": (int, float),
    "train_return_mean": (int, float, type(None)), "train_episodes": int, "eval_return_mean": (int, float),
    "eval_return_std": (int, float), "eval_episodes": int,
}  # fmt: skip
NOT_COMPARED = {"seed", "run_dir", "resume", "log_interval", "checkpoint_interval", "torch_threads"}
NOT_NAMED = {"env_id", "task", "base_model", "eval_episodes"}  # nor do these name a run made by hand


@dataclass
class Run:
    """One run, however it ended. Episode arrays are (episodes,): the step and second each ended at, and its return."""

    directory: Path
    algorithm: str
    env_id: str
    seed: int
    status: str  # done, failed, unfinished or missing
    reason: str = ""
    args: dict = field(default_factory=dict)  # args.json
    summary: dict = field(default_factory=dict)  # summary.json
    record: dict = field(default_factory=dict)  # job.json
    score_range: tuple[float, float] | None = None
    threshold: float | None = None  # the return that counts as solved: the suite's, or else Gymnasium's
    points: dict[str, np.ndarray] = field(default_factory=dict)  # by steps and by seconds: where, and the return there
    reached: tuple[float, float] | None = None  # steps and seconds to the threshold, inf for never; None for unknown
    logged: dict[str, np.ndarray] = field(default_factory=dict)  # tag -> steps and values, (2, entries)
    problems: list[str] = field(default_factory=list)
    # What the report makes of it beside the other runs of its environment:
    curve: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # axis -> bins and returns, (bins,)
    area: float | None = None  # the mean of the curve over the steps that all runs have
    common: tuple[float, float] | None = None  # the worst bin of any run over these steps, and how many they are
    compared: float | None = None  # the return that scores and probabilities compare

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
        """Whether it trained a language model on a task: a completion is an episode and one step."""
        return "task" in self.args

    @property
    def further(self) -> dict:
        """The numbers of its summary that not every script has."""
        known = {name: x for name, x in self.summary.items() if name not in SUMMARY and type(x) in (int, float)}
        return {name: x for name, x in known.items() if isfinite(x)}

    def score(self, value: float | np.ndarray) -> float | np.ndarray:
        """Returns on the environment's scale from 0 to 1; NaN where it has no scale."""
        low, high = self.score_range or (float("nan"),) * 2
        return (value - low) / (high - low)

    def flags(self) -> dict:
        """The flags that runs of one algorithm should share."""
        about = {"script", "script_sha256", "versions", "device"}
        return {name: value for name, value in self.args.items() if name not in about | NOT_COMPARED}


# ======================================================================================================================
# Event files
# ======================================================================================================================
def masked_crc(data: bytes) -> int:
    """The checksum that event files carry: CRC-32C, turned and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path) -> tuple[list[bytes], str]:
    """The records of an event file up to the first bad one, and what is wrong there ("" where nothing is).

    A record is: length (uint64), checksum of it, data, checksum of the data, little-endian. Written here because
    TensorBoard's own reader ends at a damaged record without a word.
    """
    content, records, start = path.read_bytes(), [], 0
    while start < len(content):
        if start + 12 > len(content):
            return records, "truncated"
        length, checksum = struct.unpack_from("<QI", content, start)
        if checksum != masked_crc(content[start : start + 8]):
            return records, "corrupt"
        if start + 16 + length > len(content):
            return records, "truncated"
        data, checksum = struct.unpack_from(f"<{length}sI", content, start + 12)
        if checksum != masked_crc(data):
            return records, "corrupt"
        records.append(data)
        start += 16 + length
    return records, ""


def read_log(directory: Path, tags: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], list[str]]:
    """What a run directory's event files hold of the episodes, which are EPISODES, and under other tags: tag -> steps,
    seconds and values, (3, entries); and problems.

    A resumed run has one file per session. Each new one says at its start which checkpoint it went on from, which
    gives their order, and disowns what the ones before it logged beyond. The seconds go on counting from the last
    episode before: time between sessions is no training time.
    """
    sessions, problems = [], []
    numbers = {tag: i for i, tag in enumerate(dict.fromkeys([EPISODES, *tags]))}
    words = [tag.encode() for tag in numbers]
    for number, path in enumerate(sorted(directory.glob("events.out.tfevents.*")), start=1):
        records, problem = read_records(path)
        if problem:  # named by its number: a file's name holds the name of the machine
            problems.append(f"event file {number} is {problem} after {len(records)} records")
        try:
            head = [Event.FromString(record) for record in records[:8]]
            events = [Event.FromString(record) for record in records if any(word in record for word in words)]
        except DecodeError:
            problems.append(f"event file {number} holds a record that is no event")
            continue
        starts = [e.step for e in head if e.HasField("session_log") and e.session_log.status == SessionLog.START]
        if records:
            sessions.append((max(starts, default=-1), head[0].wall_time, number, events))
    entries = np.zeros((4, 0))  # steps, seconds, values, numbers of tags
    for purge, start, _, events in sorted(sessions, key=lambda session: session[:3]):  # clocks may be set back
        entries = entries[:, (entries[0] < purge) | (purge < 0)]
        episodes = entries[1, entries[3] == 0]
        before = episodes[-1] if len(episodes) else 0.0
        new = [
            (event.step, event.wall_time - start + before, value.simple_value, numbers[value.tag])
            for event in events
            for value in event.summary.value
            if value.tag in numbers and value.HasField("simple_value")
        ]
        entries = np.hstack([entries, np.array(new, float).reshape(-1, 4).T])
    return {tag: entries[:3, entries[3] == i] for tag, i in numbers.items()}, problems


def read_tags(directory: Path) -> set[str]:
    """All tags under which a run directory's event files hold numbers."""
    tags: set[str] = set()
    for path in directory.glob("events.out.tfevents.*"):
        with suppress(DecodeError):
            for record in read_records(path)[0]:
                tags |= {v.tag for v in Event.FromString(record).summary.value if v.HasField("simple_value")}
    return tags


# ======================================================================================================================
# Run directories
# ======================================================================================================================
def wrong_layout(value: dict | None, required: dict) -> str:
    """What keeps a JSON object from holding the `required` keys with values of their types; "" for nothing."""
    if value is None:
        return "is missing or no JSON object"
    missing = [key for key in required if key not in value]
    wrong = [
        key
        for key in required
        if key in value
        and (not isinstance(value[key], required[key]) or (isinstance(value[key], float) and not isfinite(value[key])))
    ]
    return f"lacks {', '.join(missing)}" if missing else f"has a strange {', '.join(wrong)}" if wrong else ""


def wrong_range(ends: object) -> str:
    """What is wrong with a job's score_range, two numbers or None; "" for nothing."""
    good = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, (int, float)) for end in ends)
    return "" if ends is None or (good and ends[0] < ends[1]) else "has a strange score_range"


def read_run(directory: Path, job: dict | None, tags: Sequence[str] = ()) -> Run | str:
    """The run in `directory`, made by the `job` of that record, or by hand, with what it logged under `tags`; a
    sentence where it is of a foreign layout.

    With a job, even a run that left nothing behind is a Run: it failed, or it is unfinished.
    """
    args, summary = read_json(directory / "args.json"), read_json(directory / "summary.json")
    job_layout = {"algorithm": str, "env_id": str, "seed": int, "status": str, "reason": str}
    if job is None:
        name = "task" if args and "task" in args else "env_id"
        wrong = wrong_layout(args, {name: str, "seed": int, "script": str})
        if wrong:
            return f"no run directory of these scripts: args.json {wrong}"
        job = {"algorithm": Path(args["script"]).stem, "env_id": args[name], "seed": args["seed"], "status": ""}
    elif wrong := (
        wrong_layout(job, job_layout)
        or wrong_range(job.get("score_range"))
        or wrong_layout({"threshold": None} | job, {"threshold": (int, float, type(None))})
    ):
        return f"no job of this benchmark: job.json {wrong}"
    run = Run(directory, job["algorithm"], job["env_id"], job["seed"], "unfinished", args=args or {}, record=job)
    run.score_range, run.threshold = job.get("score_range"), job.get("threshold")
    if run.threshold is None:
        run.threshold = registered_threshold(run.env_id)
    if (directory / "summary.json").exists():
        wrong = wrong_layout(summary, SUMMARY)
        if wrong:
            run.status, run.reason = "failed", f"summary.json {wrong}"
        else:
            run.status, run.summary = "done", summary
    elif job["status"] == "failed":
        run.status, run.reason = "failed", job["reason"]
    if directory.is_dir():
        try:
            log, run.problems = read_log(directory, [EXACT, *tags])
        except OSError as error:
            log, run.problems = {}, [f"its event files cannot be read: {error.strerror}"]
        episodes = log.get(EPISODES, np.zeros((3, 0)))
        if run.is_task:  # every completion gets the mean return of those that were logged with it
            counts = np.clip(np.diff(episodes[0], prepend=0), 0, TOGETHER).astype(int)
            episodes = np.repeat(episodes, counts, axis=1)
        # Half a curve would pass for a run that stopped learning. A whole one may still stand in a damaged file: what
        # is lost at the end of a session that was killed, the next one has disowned.
        if run.status == "done" and episodes.shape[1] != run.summary["train_episodes"]:
            run.problems.append(
                f"its event files hold {episodes.shape[1]} of its {run.summary['train_episodes']} episodes; "
                "its summary is used, its learning curve is not"
            )
        elif episodes.size:
            run.points = {"steps": episodes[[0, 2]], "seconds": episodes[1:]}
            run.reached = reached(run.threshold, episodes, log[EXACT])
            found = {tag: [(x, float(f"{y:.6g}")) for x, _, y in log[tag].T] for tag in tags}  # as in logged.csv
            run.logged = {tag: np.array(series).T for tag, series in found.items() if series}
    return run


def registered_threshold(env_id: str) -> float | None:
    """The return at which Gymnasium counts the environment as solved, if it names one."""
    return gym.registry[env_id].reward_threshold if env_id in gym.registry else None


def reached(threshold: float | None, episodes: np.ndarray, exact: np.ndarray) -> tuple[float, float] | None:
    """Steps and seconds until the last 100 training episodes averaged the threshold, or, where a run logs its exact
    success, until that was as high; infinite where they never did. Both arrays: steps, seconds, values, (3, n)."""
    if threshold is None:
        return None
    if exact.size:
        passed = np.flatnonzero(exact[2] >= threshold)
        return (exact[0, passed[0]], exact[1, passed[0]]) if len(passed) else (inf, inf)
    index = first_reached(episodes[2], threshold)
    return (inf, inf) if index is None else (float(episodes[0, index]), float(episodes[1, index]))


def find_runs(root: Path, tags: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """All runs under `root`, sorted, with what they logged under `tags`, and sentences on what was found there but
    could not be used.

    Runs of a suite are known by their job.json, others by args.json; both may lie at any depth. What a grid.json there
    names and nobody began is missing.
    """

    def place(directory: Path) -> str:
        return str(directory.relative_to(root))

    runs: list[Run] = []
    problems: list[str] = []
    for folder, folders, files in os.walk(root):
        directory = Path(folder)
        if "job.json" in files:
            found = read_run(directory / "run", read_json(directory / "job.json") or {}, tags)
        elif "args.json" in files:
            found = read_run(directory, None, tags)
        elif any(name.startswith("events.out.tfevents") for name in files):
            found = "no run directory of these scripts: event files but no args.json"
        else:
            for name, job in (read_json(directory / "grid.json") or {}).items():
                if not (directory / name / "job.json").exists():
                    job = job if isinstance(job, dict) else None
                    if wrong := wrong_layout(job, {"algorithm": str, "env_id": str, "seed": int}):
                        problems.append(f"{place(directory / 'grid.json')}: {name} {wrong}")
                    else:
                        about = (job["algorithm"], job["env_id"], job["seed"])
                        runs.append(Run(directory / name, *about, "missing", "never begun"))
            folders.sort()
            continue
        folders.clear()
        if isinstance(found, Run):
            runs.append(found)
        else:
            problems.append(f"{place(directory)}: {found}")
    problems += [f"{place(run.directory)}: {problem}" for run in runs for problem in run.problems]
    name_by_flags([run for run in runs if not run.record.get("status", "missing")])
    runs.sort(key=lambda run: (run.env_id, run.algorithm, run.seed, str(run.directory)))
    return runs, problems + mixtures(runs)


def grouped(runs: list[Run], *names: str) -> dict:
    """The runs by the first of these attributes, those of each of its values by the next, and so on."""
    groups: dict = {}
    for run in runs:
        groups.setdefault(getattr(run, names[0]), []).append(run)
    return {value: grouped(members, *names[1:]) for value, members in groups.items()} if names[1:] else groups


def done(runs: list[Run]) -> list[Run]:
    """The runs that ended well, whose returns count."""
    return [run for run in runs if run.status == "done"]


def name_by_flags(runs: list[Run]) -> None:
    """Add to the algorithm of runs made by hand the flags in which it differs on one environment: ppo clip_coef=0.1."""
    for members in grouped(runs, "algorithm").values():
        seen: dict[tuple[str, str], set[str]] = {}
        flags = {name for run in members for name in run.flags()} - NOT_NAMED
        for run, name in product(members, flags):
            seen.setdefault((run.env_id, name), set()).add(str(run.flags().get(name)))
        names = sorted({name for (_, name), values in seen.items() if len(values) > 1})
        for run in members:
            run.algorithm = " ".join([run.algorithm, *(f"{name}={run.flags().get(name)}" for name in names)])


def mixtures(runs: list[Run]) -> list[str]:
    """Sentences on runs that stand under one name but should not be averaged: other flags, or one seed twice."""
    problems = []
    for (algorithm, env_id), members in grouped(done(runs), "cell").items():
        flags = [run.flags() for run in members]
        for name in sorted({name for one in flags for name in one}):
            values = {str(one.get(name)) for one in flags}
            if len(values) > 1:
                problems.append(
                    f"{algorithm} on {env_id} mixes runs with different {name}: {', '.join(sorted(values))}"
                )
        if len({run.args.get("script_sha256") for run in members}) > 1:
            problems.append(f"{algorithm} on {env_id} mixes runs of different versions of the script")
        seeds = [run.seed for run in members]
        problems += [
            f"{algorithm} on {env_id} has seed {seed} {seeds.count(seed)} times; all of them count"
            for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1})
        ]
    return problems
