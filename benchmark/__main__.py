"""python -m benchmark run | report | tune | speed | gpu: see README.md here."""

import argparse
import os
import runpy
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

if not __package__:  # python PATH/benchmark, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("benchmark", run_name="__main__", alter_sys=True)  # ends with sys.exit

from .arguments import RUNS, parse_args
from .files import write_json
from .grid import (
    Job,
    find_path,
    load_suite,
    make_jobs,
    named_suites,
    parse_flags,
    parse_numbers,
)
from .machine import commit_of
from .words import BadInput

SPEED = {"seed": 0, "repeats": 5, "only": None}  # of `speed`, where a suite of suites names it

# The commands import what they take: `report` needs no locks and `run` no figures.


def run(args: argparse.Namespace) -> int:
    """Run a grid, or those of several suites; return the exit status."""
    from .pool import differences

    if names := named_suites(args.suite):
        return run_several(args, names)
    suite, directory, jobs = planned(args)
    if args.dry_run:
        for i, job in enumerate(jobs):
            gpu = {"CUDA_VISIBLE_DEVICES": args.gpus[i % len(args.gpus)]} if args.gpus else {}
            other = differences(job)
            note = f"  # supersedes a run: {'; '.join(other)}" if other else ""
            print(f"{shell_line(job, gpu)}{note}")
        return 0
    check_runs(args, directory, jobs)
    return make_runs(args, suite, directory, jobs)


def planned(args: argparse.Namespace) -> tuple[dict, Path, list[Job]]:
    """The suite of a command line, its folder, and its grid."""
    directory, suite = args.dir or RUNS / Path(args.suite).stem, load_suite(args.suite)
    seeds = None if args.seeds is None else parse_numbers(args.seeds)
    choice = args.environments, args.algorithms, seeds, args.steps, args.extra
    return suite, directory, make_jobs(suite, directory.resolve(), *choice)


def check_runs(args: argparse.Namespace, directory: Path, jobs: list[Job]) -> None:
    """Refuse runs that were made otherwise, or see to it that they can be made anew."""
    from .pool import check_flags, differences

    others = [other for job in jobs if (other := differences(job))]
    if others and not args.replace:
        counts = Counter(what for other in others for what in other).most_common()
        found = "; ".join(f"{what}: {n} runs" for what, n in counts)
        raise BadInput(
            f"{len(others)} of {len(jobs)} runs in {directory} were made otherwise "
            f"({found}); name another --dir, or set them aside and run anew with --replace"
        )
    if others:
        check_flags(jobs)


def run_several(args: argparse.Namespace, names: list[str]) -> int:
    """Say how long the suites will take, then run them, the shortest first, and report on each;
    return the exit status."""
    from .plan import RESULTS, Seconds, part, table
    from .pool import differences, has_summary

    known, several, parts = Seconds(RESULTS), {}, []
    for name in names:
        directory = (args.dir or RUNS) / Path(name).stem
        own = argparse.Namespace(**vars(args) | {"suite": name, "dir": directory})
        several[name] = own
        if name == "speed":
            jobs = [job for _, job in speed_jobs(directory)]
        else:
            *_, jobs = planned(own)
            if not args.dry_run:
                check_runs(own, directory, jobs)
        left = [job for job in jobs if not has_summary(job) or differences(job)]
        parts.append(part(name, jobs, left, known))
    parts.sort(key=lambda x: (x.name == "speed", x.seconds))
    print("\n".join(table(parts, args.workers)), flush=True)
    if args.dry_run:
        return 0
    return max([run_part(several[x.name]) for x in parts])


def run_part(args: argparse.Namespace) -> int:
    """Run one of several suites, and report on it; return the exit status."""
    print(f"\n{args.suite}", flush=True)
    if args.suite == "speed":
        return speed(argparse.Namespace(**vars(args) | SPEED))
    status = make_runs(args, *planned(args))
    options = {"out": None, "log": [], "against": None}
    report(argparse.Namespace(dir=args.dir, **options))
    return status


def make_runs(args: argparse.Namespace, suite: dict, directory: Path, jobs: list[Job]) -> int:
    """Run the jobs, and say how it went; return the exit status."""
    from .pool import save_grid

    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)  # the report's default is the folder that was last run
        save_grid(directory, jobs)
        write_json(directory / "report.json", suite.get("report", {}))
    except OSError as error:
        raise BadInput(f"cannot use {directory}: {error.strerror}") from None

    scripts = sorted({job.script for job in jobs})
    if dirty := [path.name for path in scripts if commit_of(path).endswith("-dirty")]:
        what = "not as in the last commit, so these runs cannot be made again"
        print(f"warning: {', '.join(dirty)}: {what}", file=sys.stderr)
    records: list[tuple[Job, dict]] = []

    def on_done(job: Job, record: dict, workers: int) -> None:
        records.append((job, record))
        line = f"{len(records)}/{len(jobs)} {job.name}: {record['status']}"
        line = f"{line} {record.get('reason', '')}".rstrip()
        print(f"{line}{time_left(records, len(jobs), workers)}", flush=True)

    execute(args, jobs, on_done)
    return conclude(records, directory)


def shell_line(job: Job, variables: dict[str, str]) -> str:
    """The job's command as a shell takes it."""
    from .pool import command

    words = [f"cd {shlex.quote(str(job.folder))} &&"] if job.folder else []
    for name, value in (variables | job.variables()).items():
        words.append(f"{name}={shlex.quote(value)}")
    return " ".join([*words, shlex.join(command(job))])


def time_left(records: list[tuple[Job, dict]], total: int, workers: int) -> str:
    """How long the jobs that are left will take, by those that ran; "" where none did."""
    timed = [(job, record["seconds"]) for job, record in records if "seconds" in record]
    if not timed:
        return ""
    busy = sum(seconds * min(job.processes(), workers) for job, seconds in timed)
    left = busy / len(timed) * (total - len(records)) / workers
    return f"; about {left:.0f} s left"


def execute(args: argparse.Namespace, jobs: Iterable[Job | None], on_done, **more) -> None:
    """Run the jobs where the command line says."""
    from .pool import run_local

    more |= {name: getattr(args, name) for name in ("retries", "timeout")}
    if args.executor == "local":
        run_local(jobs, on_done, args.workers, args.gpus, **more)
        return
    from .ray_pool import run_ray

    run_ray(jobs, on_done, args.address or "local", args.runs_per_gpu, **more)


def conclude(records: list[tuple[Job, dict]], directory: Path) -> int:
    """Say how the grid went, list what failed with the end of its log, and return the exit
    status."""
    from .pool import ending, read_output

    count = Counter(record["status"] for _, record in records)
    before = f"{count['finished']} had been done before"
    print(f"{directory}: {count['done']} runs done, {before}, {count['failed']} failed")
    if count["locked"]:
        print(f"{count['locked']} runs are left to the invocation that is at them")
    for job, record in records:
        if record["status"] == "failed":
            log = job.directory / "log.txt"
            print(f"\nfailed: {job.name}: {record['reason']}; log: {log}")
            for line in ending(read_output(job), 5):
                print(f"    {line}")
    return 1 if count["failed"] else 0


def report(args: argparse.Namespace) -> int:
    """Write a report; return the exit status."""
    from .report import write_report

    if args.dir is None:
        folders = [path.parent for path in RUNS.glob("*/grid.json")]
        if not folders:
            how = "name a folder, or make some: python -m benchmark run smoke"
            raise BadInput(f"there are no runs in {RUNS}; {how}")
        args.dir = max(folders, key=lambda path: path.stat().st_mtime)
    if (args.dir / "speed.csv").exists():  # there one contestant has many runs of a kind
        raise BadInput(f"{args.dir} is a folder of `speed`; its report is report.md in it")
    if (args.dir / "tune.json").exists():
        what = f"{args.dir} is a folder of `tune`; its report is report/index.html in it"
        raise BadInput(f"{what}, and search/ and fresh/ hold the runs")
    stored = (args.dir / "results.csv").exists()  # a report, which is made again where it lies
    out = args.out or (args.dir if stored else args.dir / "report")
    tags = list(dict.fromkeys(args.log))
    runs, problems = write_report(args.dir, out, tags, args.against)
    for problem in problems:
        print(f"problem: {problem}")
    bad = f"{sum(run.status != 'done' for run in runs)} of them not done"
    print(f"{len(runs)} runs, {bad}, {len(problems)} problems: {out / 'index.html'}")
    return 0


def tune(args: argparse.Namespace) -> int:
    """Search flags; return the exit status."""
    from .space import load_space, space_name
    from .tune import Search
    from .tune import tune as search_flags

    script, flag = find_path(args.script), "env-id" if args.env_id else "task"
    trained = args.env_id or args.task
    fixed = parse_flags(args.extra)
    if "total_timesteps" in fixed:
        raise BadInput("what follows -- must not give total_timesteps: that is --steps")
    if args.env_kwargs is not None:
        fixed["env_kwargs"] = args.env_kwargs
    space = load_space(args.space or space_name(script, fixed), fixed)
    name = f"tune-{script.stem}-{trained}".replace("/", "_").replace(":", "_")
    seeds, fresh = parse_numbers(args.seeds), parse_numbers(args.fresh_seeds, "--fresh-seeds")
    if shared := set(seeds) & set(fresh):
        raise BadInput(
            f"--fresh-seeds has {min(shared)}, which the search uses: it is not fresh"
        )
    search = Search(
        script, trained, flag, args.steps, fixed, space, seeds, fresh, args.trials,
        args.objective, args.dir or RUNS / name,
    )  # fmt: skip
    return search_flags(search, partial(execute, args))


def speed_jobs(directory: Path) -> list[tuple[str, Job]]:
    """What `speed` measures by default."""
    from .speed import make_plan

    seeds = range(SPEED["seed"] + 1, SPEED["seed"] + SPEED["repeats"] + 1)
    return make_plan(load_suite("speed"), directory.resolve(), seeds)


def speed(args: argparse.Namespace) -> int:
    """Measure speeds; return the exit status."""
    from .speed import speed as measure

    directory, suite = args.dir or RUNS / Path(args.suite).stem, load_suite(args.suite)
    return conclude(measure(suite, directory, args.seed, args.repeats, args.only), directory)


def gpu(args: argparse.Namespace) -> int:
    """Measure what a GPU buys; return the exit status."""
    from .gpu import gpu as measure

    limits = args.repeats, args.minutes, args.short
    return measure(args.dir.resolve(), args.device, args.only, *limits)


def main(words: list[str]) -> int:
    """Run the command of these words; return the exit status."""
    commands = {
        "run": run, "report": report, "tune": tune, "speed": speed, "gpu": gpu,
    }  # fmt: skip
    try:
        args = parse_args(words)
        return commands[args.command](args)
    except BadInput as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, signal.SIGINT)  # Windows has no SIGHUP
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
            # Each ends it as Ctrl-C does: children first.
            signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
