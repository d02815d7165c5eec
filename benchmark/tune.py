"""Searches flags for a script on an environment, with Optuna.

The folder holds
    tune.json   what is searched; another search is refused there
    study.log   Optuna's journal, to which several shells may write
    search/     a folder for each trial, with a job's folder for each of its seeds, and one for
                the script's own flags, default
    fresh/      the best trial and the default flags, on seeds that the search did not see
    best.toml   these two as a suite
    report/     a page on all of it

A trial is as good as the lower bound of its mean over seeds. It gets its seeds one after
another and is pruned once its upper bound lies below the lower bound of the best one. For a run
that is under way, the upper bound takes the highest bin that any run's learning curve has had
for all of the steps that are left. So a curve that starts late is cut short only where it could
not catch up, unless it were to learn what no run has.
"""

import fcntl
import hashlib
import json
import math
import shlex
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from .events import EPISODES, read_log
from .files import read_json, write_atomically, write_json
from .grid import ROOT, Job, check_environment, job_name
from .pool import (
    check_flags,
    differences,
    ending,
    has_summary,
    locked,
    read_output,
    save_grid,
)
from .runs import Run, read_run
from .space import Dimension, Value
from .stats import binned
from .variants import script_defaults
from .words import BadInput, number

BINS = 50  # of a learning curve
CONFIDENCE = 0.7  # of a bound, one-sided
PRIOR = 4  # degrees of freedom that the other trials' spread over seeds has in a trial's own
BATCHES = 10  # in a run, at least
BEGUN = 5  # trials that must be complete before one is pruned
DEFAULT = "default"
LIVES = ("complete", "pruned", "failed", "running")


# ==============================================================================================
# Numbers
# ==============================================================================================
@dataclass(frozen=True)
class Result:
    """What came of one run: what the search maximises, and the highest bin of its curve."""

    value: float
    peak: float


def curve(points: np.ndarray, steps: int) -> np.ndarray:
    """The learning curve in BINS bins of the steps, (BINS,), of episodes, (2, n): where each
    ended and its return. Bins before the first one count as it: it was running then."""
    line = binned(*points, np.linspace(0, steps, BINS + 1)[1:])
    return np.where(np.isnan(line), line[np.isfinite(line)][0], line)


def most(line: np.ndarray, peak: float) -> float:
    """The highest area that a curve of which these bins are known could have, if no bin of it
    rises above its own so far and `peak`, the highest of the other runs."""
    left = BINS - len(line)
    return float((line.sum() + left * max(peak, line.max())) / BINS)


def bounds(values: list[float], spread: float | None) -> tuple[float, float]:
    """Lower and upper bound of the mean over seeds. The variance is the values' own and that of
    other trials, `spread`, which counts as PRIOR degrees of freedom. Without either there is
    no width."""
    own, mean = len(values) - 1, float(np.mean(values))
    prior = PRIOR if spread is not None else 0
    if own + prior == 0:
        return mean, mean
    total = prior * (spread or 0.0) + (own * np.var(values, ddof=1) if own else 0.0)
    deviation = math.sqrt(total / (own + prior) / len(values))
    half = float(stdtrit(own + prior, CONFIDENCE)) * deviation
    return mean - half, mean + half


@dataclass
class Candidate:
    """A trial, or the default flags: the flags that are varied and what has come of them."""

    name: str
    flags: dict[str, Value]
    state: str  # one of LIVES
    results: dict[int, Result] = field(default_factory=dict)  # by seed
    number: int | None = None  # Optuna's, of a trial
    params: dict = field(default_factory=dict)  # what Optuna drew

    @property
    def values(self) -> list[float]:
        return [result.value for result in self.results.values()]

    @property
    def judged(self) -> bool:
        """Whether it has ended, with a run that came to its end. A trial that lost against the
        default flags is pruned, and may still be the best of the trials."""
        return self.state in ("complete", "pruned") and bool(self.results)


def spread(candidates: list[Candidate]) -> float | None:
    """The variance over seeds, averaged over candidates with two or more; None where there is
    none."""
    known = [np.var(x.values, ddof=1) for x in candidates if len(x.results) > 1]
    return float(np.mean(known)) if known else None


# ==============================================================================================
# The search
# ==============================================================================================
class KernelLock:
    """A lock of the journal that the kernel frees with the process, as Optuna's own are not."""

    def __init__(self, path: Path):
        self.path, self.file = path, None

    def acquire(self) -> bool:
        self.file = self.path.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        self.file.close()


@dataclass
class Search:
    """What is searched, and what this invocation has in hand."""

    script: Path
    env_id: str
    environment_flag: str  # env-id or task
    steps: int
    fixed: dict[str, Value]  # flags that all runs have
    space: list[Dimension]
    seeds: list[int]  # of a trial, at most
    fresh: list[int]
    trials: int
    objective: str  # area or evaluation
    directory: Path
    held: dict[str, ExitStack] = field(default_factory=dict)  # locks by candidate
    busy: set[str] = field(default_factory=set)  # candidates of which a run is under way
    offered: set[str] = field(default_factory=set)  # runs on fresh seeds that were begun
    found: dict[Path, Result | None] = field(default_factory=dict)  # by job folder

    @property
    def label(self) -> str:
        return self.script.stem

    def flags_of(self, params: dict) -> dict[str, Value]:
        """The flags for what Optuna drew; batches are halved until ten of them fit into a run,
        where the range of num_steps allows it."""
        drawn = [x for x in self.space if x.name in params]
        flags = {x.name: x.value(params[x.name]) for x in drawn}
        known = script_defaults(self.script) | self.fixed | flags
        num_envs = known.get("num_envs", 1)
        # A word that is no number is left to the script, which says so in one line.
        num_envs = max(1, int(num_envs)) if str(num_envs).isdecimal() else 1
        for x in drawn:
            if x.name == "num_steps" and x.scale == "powers of 2":
                fitting = self.steps // (num_envs * BATCHES)
                while flags["num_steps"] > max(fitting, x.low):
                    flags["num_steps"] //= 2
        if {"num_minibatches", "num_steps"} <= flags.keys():
            half = max(1, num_envs * flags["num_steps"] // 2)  # a minibatch has two steps
            flags["num_minibatches"] = min(flags["num_minibatches"], half)
        return flags

    def settings(self) -> dict:
        """What tune.json holds: all that must not change under a search."""
        return {
            "script": str(self.script),
            "script_sha256": hashlib.sha256(self.script.read_bytes()).hexdigest(),
            self.environment_flag: self.env_id, "steps": self.steps, "fixed": self.fixed,
            "space": [json.loads(json.dumps(asdict(dimension))) for dimension in self.space],
            "seeds": self.seeds, "fresh": self.fresh, "objective": self.objective,
        }  # fmt: skip

    def open(self) -> None:
        """Make the folder, or refuse one of another search; check the flags and open the
        study."""
        optuna = import_optuna()
        path, settings = self.directory / "tune.json", self.settings()
        before = read_json(path)
        if before is None:
            if self.directory.exists() and any(self.directory.iterdir()):
                what = f"{self.directory} is not empty and has no tune.json"
                raise BadInput(f"{what}; name another --dir")
            self.check()
            self.directory.mkdir(parents=True, exist_ok=True)
            write_json(path, settings)
        elif differs := [key for key in settings if before.get(key) != settings[key]]:
            what = f"{self.directory} holds a search with other {', '.join(differs)}"
            how = "name another --dir"
            if not any(self.directory.glob("search/*/*/run/summary.json")):
                how = f"{how}, or delete it: no run of it is done"
            raise BadInput(f"{what}; {how}")
        backend = optuna.storages.journal.JournalFileBackend(
            str(self.directory / "study.log"), KernelLock(self.directory / "study.lock")
        )
        storage = optuna.storages.JournalStorage(backend)
        with locked(self.directory, waits=True):
            self.study = optuna.create_study(
                storage=storage, study_name="tune", direction="maximize", load_if_exists=True
            )

    def check(self) -> None:
        """Refuse flags that the script does not take, by its own words, before any run."""
        lowest = {}
        for x in self.space:
            lowest[x.name] = x.choices[0] if x.choices else x.distribution().low
        for name, flags in ((DEFAULT, {}), ("the space", self.flags_of(lowest))):
            check_flags([self.job(Candidate(name, flags, "running"), self.seeds[0])])

    def job(self, candidate: Candidate, seed: int, folder: str = "search") -> Job:
        """The run of a candidate with a seed."""
        place = self.directory / folder
        if folder == "search":
            place /= candidate.name
        flags = {"total_timesteps": self.steps, "torch_threads": 1}
        flags |= self.fixed | candidate.flags
        return Job(
            candidate.name, self.script, self.env_id, seed, flags, (), None,
            place.resolve() / job_name(self.env_id, candidate.name, seed),
            self.environment_flag, None, Path.cwd(),
        )  # fmt: skip

    def is_searched(self, job: Job) -> bool:
        """Whether a run is one of the search, not one on fresh seeds."""
        return job.directory.is_relative_to((self.directory / "search").resolve())

    def result(self, job: Job) -> Result | None:
        """What came of a run; None where it is not done, or no episode has ended in it."""
        if job.directory not in self.found and has_summary(job):
            run = read_run(job.run_dir, None)
            self.found[job.directory] = None
            if isinstance(run, Run) and self.objective == "evaluation":
                value = run.summary["eval_return_mean"]
                self.found[job.directory] = Result(value, value)  # no run is cut short
            elif isinstance(run, Run) and run.has_curve:
                line = curve(run.points["steps"], self.steps)
                self.found[job.directory] = Result(float(line.mean()), float(line.max()))
        return self.found.get(job.directory)

    def candidates(self) -> list[Candidate]:
        """The default flags and all trials of all shells, with what their folders hold."""
        found = [Candidate(DEFAULT, {}, "running")]
        for trial in self.study.get_trials(deepcopy=False):
            if DEFAULT in trial.user_attrs:
                continue
            flags = self.flags_of(trial.params)
            state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
            name = f"trial-{trial.number:03d}"
            found.append(Candidate(name, flags, state, {}, trial.number, dict(trial.params)))
        for candidate in found:
            for seed in self.seeds:
                if result := self.result(self.job(candidate, seed)):
                    candidate.results[seed] = result
        if len(found[0].results) == len(self.seeds):
            found[0].state = "complete"
        return found

    def best(self, candidates: list[Candidate]) -> Candidate | None:
        """The trial with the highest lower bound, or None where no run came to its end."""
        known = [x for x in candidates if x.judged and x.name != DEFAULT]
        width = spread(candidates)
        return max(known, key=lambda x: bounds(x.values, width)[0], default=None)

    # ------------------------------------------------------------------------------------------
    # What the pool asks
    # ------------------------------------------------------------------------------------------
    def jobs(self):
        """Runs, one by one, by what became of the others; None where there is none now."""
        while True:
            with locked(self.directory, waits=True):
                job = self.next_run()
            if job:
                self.busy.add(job.algorithm)
            yield job

    def next_run(self) -> Job | None:
        """The next seed of a candidate in hand, of one that a shell left behind, of a new one,
        or, after the search, a run on fresh seeds."""
        candidates = self.candidates()
        for candidate in candidates:
            if candidate.state == "running" and candidate.name not in self.busy:
                missing = [seed for seed in self.seeds if seed not in candidate.results]
                if missing and self.hold(candidate):
                    return self.job(candidate, missing[0])
                if candidate.number is not None and not missing and self.hold(candidate):
                    self.settle(candidate, candidates)
        if sum(x.number is not None for x in candidates) < self.trials:
            return self.job(self.ask(), self.seeds[0])
        if any(x.state == "running" for x in self.candidates()):
            return None
        return self.next_fresh()

    def hold(self, candidate: Candidate) -> bool:
        """Whether this invocation has the candidate in hand, or can take it."""
        if candidate.name not in self.held:
            stack = ExitStack()
            place = self.directory / "search" / candidate.name
            if not stack.enter_context(locked(place)):
                stack.close()
                return False
            self.held[candidate.name] = stack
        return True

    def ask(self) -> Candidate:
        """A new trial: the first ten at random, others by TPE. It is drawn in a copy of the
        study, so that it enters the search whole, or not at all if the program is killed."""
        optuna = import_optuna()
        trials = self.study.get_trials(deepcopy=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=len(trials), multivariate=True, constant_liar=True
            )
        copy = optuna.create_study(direction="maximize", sampler=sampler)
        copy.add_trials(trials)
        space = {x.name: x.distribution() for x in self.space}
        params, name = copy.ask(space).params, f"trial-{len(trials):03d}"
        self.study.add_trial(optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=params, distributions=space
        ))  # fmt: skip
        candidate = Candidate(name, self.flags_of(params), "running", {}, len(trials), params)
        self.hold(candidate)
        return candidate

    def watch(self, job: Job) -> str:
        """Why a run that is under way should end; "" where it should not."""
        if self.objective != "area" or not self.is_searched(job):
            return ""
        candidates = self.candidates()
        candidate = next((x for x in candidates if x.name == job.algorithm), None)
        low = self.bar(candidates)
        if candidate is None or candidate.number is None or low is None:
            return ""
        points = read_log(job.run_dir)[0][EPISODES][[0, 2]]
        bins = int(points[0, -1] / self.steps * BINS) if points.size else 0
        if bins == 0:
            return ""
        line = curve(points, self.steps)
        peaks = [x.peak for other in candidates for x in other.results.values()]
        hoped = most(line[:bins], max(peaks, default=-math.inf))
        _, high = bounds([*candidate.values, hoped], spread(candidates))
        if high >= low:
            return ""
        self.report(candidate, float(line[:bins].mean()), bins + BINS * len(candidate.results))
        could = f"could reach {number(high)} at most, the best is above {number(low)}"
        return f"after {number(points[0, -1])} steps it {could}"

    def bar(self, candidates: list[Candidate]) -> float | None:
        """The lower bound of the best candidate; None before enough are complete."""
        complete = [x for x in candidates if x.state == "complete"]
        if len(complete) < BEGUN:
            return None
        width = spread(candidates)
        return max(bounds(x.values, width)[0] for x in complete)

    def on_done(self, job: Job, record: dict, _: int) -> None:
        """Take in what became of a run, and say so."""
        self.busy.discard(job.algorithm)
        line = f"{job.algorithm}, seed {job.seed}: {record['status']}"
        line = f"{line} {record.get('reason', '')}".rstrip()
        if record["status"] == "failed":
            line = ": ".join([line, *ending(read_output(job), 1)])
        if not self.is_searched(job):
            print(f"fresh: {line}", flush=True)
            return
        with locked(self.directory, waits=True):
            candidates = self.candidates()
            candidate = next(x for x in candidates if x.name == job.algorithm)
            result = candidate.results.get(job.seed)
            if record["status"] == "pruned":
                self.tell(candidate, "pruned")
            elif record["status"] == "failed":
                self.fail(candidate, ": ".join(ending(read_output(job), 1)))
            elif result is None and record["status"] in ("done", "finished"):
                what = f"no training episode ended in {number(self.steps)} steps"
                self.fail(candidate, f"{what}; more --steps, or --objective evaluation")
            elif result:
                self.settle(candidate, candidates)
            if result:
                line = f"{line}, {self.objective} {number(result.value)}"
            print(f"{line}; {self.progress()}", flush=True)

    def settle(self, candidate: Candidate, candidates: list[Candidate]) -> None:
        """Tell Optuna of a candidate that has all its seeds, or lost the race for more."""
        low, high = bounds(candidate.values, spread(candidates))
        if len(candidate.results) == len(self.seeds):
            self.tell(candidate, "complete", low)
            return
        bar = self.bar(candidates)
        if candidate.number is not None and bar is not None and high < bar:
            mean = float(np.mean(candidate.values))
            self.report(candidate, mean, BINS * len(candidate.results))
            self.tell(candidate, "pruned")

    def fail(self, candidate: Candidate, reason: str) -> None:
        """Count a candidate as failed; end where nothing works."""
        if candidate.name == DEFAULT:
            raise BadInput(f"the default flags fail: {reason}")
        self.tell(candidate, "failed")
        states = [x.state for x in self.candidates() if x.number is not None]
        if states.count("failed") >= 3 and not {"complete", "pruned"} & set(states):
            raise BadInput(f"all trials fail so far, the last one for: {reason}")

    def report(self, candidate: Candidate, value: float, bins: int) -> None:
        """Tell Optuna how far a trial came that is pruned."""
        trial_id = self.study.get_trials(deepcopy=False)[candidate.number]._trial_id
        import_optuna().trial.Trial(self.study, trial_id).report(value, bins)

    def tell(self, candidate: Candidate, state: str, value: float | None = None) -> None:
        """End a candidate, in the study too; the default flags enter it where its space has a
        place for them, or near them."""
        optuna = import_optuna()
        if candidate.number is not None:
            name = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[state]
            states = optuna.trial.TrialState
            self.study.tell(candidate.number, value, state=states[name])
        else:
            known = script_defaults(self.script) | self.fixed
            params = {x.name: x.nearest(known.get(x.name)) for x in self.space}
            trials = self.study.get_trials(deepcopy=False)
            if None not in params.values() and not any(DEFAULT in x.user_attrs for x in trials):
                self.study.add_trial(optuna.trial.create_trial(
                    params=params, value=value, user_attrs={DEFAULT: True},
                    distributions={x.name: x.distribution() for x in self.space},
                ))  # fmt: skip
        candidate.state = state
        if stack := self.held.pop(candidate.name, None):
            stack.close()

    def next_fresh(self) -> Job | None:
        """A run on fresh seeds that is still to be made: of the best trial and the default."""
        jobs = [self.job(x, seed, "fresh") for seed in self.fresh for x in self.finalists()]
        if not self.offered and jobs:
            save_grid(self.directory / "fresh", jobs)
        for job in jobs:
            done = has_summary(job) and not differences(job)  # it may be of an earlier best
            if job.name not in self.offered and not done:
                self.offered.add(job.name)
                return job
        return None

    def finalists(self) -> list[Candidate]:
        """The default flags and the best trial, under the names that they have in the end."""
        best = self.best(self.candidates())
        found = [Candidate(self.label, {}, "complete")]
        return (
            [*found, Candidate(f"{self.label}-tuned", best.flags, "complete")] if best else []
        )

    # ------------------------------------------------------------------------------------------
    # What is said
    # ------------------------------------------------------------------------------------------
    def progress(self) -> str:
        """How far the search is, in words."""
        candidates = self.candidates()
        states = [x.state for x in candidates if x.number is not None]
        counts = [f"{states.count(state)} {state}" for state in LIVES if state in states]
        best = self.best(candidates)
        words = f"{len(states)} of {self.trials} trials: {', '.join(counts)}"
        if best is None:
            return words
        low = bounds(best.values, spread(candidates))[0]
        return f"{words}; best {best.name}, {self.objective} above {number(low)}"

    def command(self, flags: dict[str, Value]) -> str:
        """The command line of a run with these flags, to copy."""
        job = self.job(Candidate("", flags, "complete"), 1)
        words = [f"--{self.environment_flag}", self.env_id, *job.words()[4:]]
        script = self.place() if Path.cwd() == ROOT else str(self.script)
        text = shlex.join(["python", script, *words]).replace(" --torch-threads 1", "", 1)
        return f"PYTHONPATH=. {text}" if self.own_module() else text

    def own_module(self) -> Path | None:
        """The file or folder of the environment's module, where it lies in this folder and not
        beside the script."""
        name = self.env_id.partition(":")[0].partition(".")[0]
        places = [Path(f"{name}.py"), Path(name)] if ":" in self.env_id else []
        found = next((path for path in places if path.exists()), None)
        return found if Path.cwd() != self.script.parent else None

    def place(self) -> str:
        """The script's path, of one of this repository from its root."""
        inside = self.script.is_relative_to(ROOT)
        return str(self.script.relative_to(ROOT) if inside else self.script)

    def say_best(self) -> None:
        """The best flags so far, as a command line."""
        if best := self.best(self.candidates()):
            low = bounds(best.values, spread(self.candidates()))[0]
            print(f"\nbest so far: {best.name}, {self.objective} above {number(low)}, on the")
            print("seeds of the search, so that it promises too much:")
            print(self.command(best.flags))
        else:
            print("\nno run of a trial is done yet")


def import_optuna():
    """Optuna, without its log."""
    try:
        import optuna
    except ImportError:
        how = "pip install -r benchmark/requirements-tune.txt"
        raise BadInput(f"tune needs Optuna: {how}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def toml_value(value: Value) -> str:
    """A value as TOML has it."""
    return json.dumps(value) if isinstance(value, (str, bool)) else repr(value)


def write_suite(search: Search, flags: dict[str, Value]) -> None:
    """best.toml: the default flags and the tuned ones, for `run`."""

    def table(values: dict[str, Value]) -> str:
        return f"{{ {', '.join(f'{k} = {toml_value(v)}' for k, v in values.items())} }}"

    env, script = json.dumps(search.env_id), json.dumps(search.place())
    label, tuned = json.dumps(search.label), json.dumps(f"{search.label}-tuned")
    environment = [f"[environments.{env}]", f"total_timesteps = {search.steps}"]
    if search.environment_flag == "task":
        environment.append('flag = "task"')
    if search.fixed:
        environment.append(f"flags = {table(search.fixed)}")
    lines = [
        "# Made by python -m benchmark tune. Runs start in this file's folder and find modules",
        "# there, so copy it beside those that the environment needs.",
        "seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "", *environment, "", "[algorithms]",
        f"{label} = {{ script = {script} }}",
        f"{tuned} = {{ script = {script}, flags = {table(flags)} }}", "",
    ]  # fmt: skip
    write_atomically(search.directory / "best.toml", "\n".join(lines).encode())


def tune(search: Search, execute) -> int:
    """Search, run the best on fresh seeds, and report; return the exit status. `execute` runs
    jobs as the command line says."""
    if search.environment_flag == "env-id":
        check_environment(search.env_id, "env-id", [])
    search.open()
    try:
        execute(search.jobs(), search.on_done, watch=search.watch)
    except KeyboardInterrupt:
        search.say_best()
        raise
    finally:
        for stack in search.held.values():
            stack.close()
    return conclude(search)


def conclude(search: Search) -> int:
    """Write best.toml and the page, and say what came; return the exit status."""
    candidates = search.candidates()
    if any(x.state == "running" for x in candidates):
        print("the rest is left to the invocation that is at it")
        return 0
    best = search.best(candidates)
    if best is None:
        print("no trial came to its end")
        return 1
    from .tune_report import write_page

    write_suite(search, best.flags)
    for line in write_page(search, candidates, best):
        print(line)
    print(f"\n{search.command(best.flags)}")
    beside = f", once copied beside {own}" if (own := search.own_module()) else ""
    print(f"\n{search.directory / 'best.toml'}: both as a suite for `run`{beside}")
    print(f"{search.directory / 'report' / 'index.html'}: the search on a page")
    return 0
