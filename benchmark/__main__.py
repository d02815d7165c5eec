"""python -m benchmark run | report | check | speed | gpu: see README.md in this folder."""

import argparse
import os
import runpy
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import NoReturn

if not __package__:  # python PATH/benchmark, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("benchmark", run_name="__main__", alter_sys=True)  # ends with sys.exit

from .grid import SUITES, BadInput, Job, load_suite, make_jobs, parse_gpus, parse_numbers, parse_shard, take_shard
from .pool import check_flags, command, cpus, differences, ending, read_output, run_local, save_grid

RUNS = Path("runs/benchmark")  # where a suite's folder goes by default
EXAMPLES = """examples:
  %(prog)s smoke                                      every script, in a few minutes
  %(prog)s classic --algorithms ppo a2c --seeds 1-5
  %(prog)s classic --gpus 0-3 -- --eval-episodes 100  what follows -- goes to every script
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the scripts do."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(message)


def parse_args(words: list[str]) -> argparse.Namespace:
    """The command line; what stands after a bare -- is kept as it is, for the scripts."""
    words, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = Parser(prog="python -m benchmark", description="Run the scripts over environments and seeds, and report.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run", help="run a suite; what is already done is not done again", epilog=EXAMPLES,
        usage="%(prog)s SUITE [options] [-- flags for every script]", formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    run.add_argument("suite", help=f"{', '.join(sorted(p.stem for p in SUITES.glob('*.toml')))}, or a .toml file")
    run.add_argument("--dir", type=Path, help=f"folder for the runs; default {RUNS}/<suite>")
    run.add_argument("--environments", nargs="+", metavar="ENV", help="in place of the suite's")
    run.add_argument("--algorithms", nargs="+", metavar="NAME", help="some of the suite's")
    run.add_argument("--seeds", help="in place of the suite's, such as 1-5 or 1,2,8")
    run.add_argument("--steps", type=positive, help="total timesteps of every run, in place of the suite's")
    place = run.add_mutually_exclusive_group()
    place.add_argument("--workers", type=positive, help=f"runs at a time; default {cpus()}, the CPUs")
    place.add_argument("--gpus", help="GPUs such as 0-3 or 0,2, in place of --workers; implies -- --device cuda")
    run.add_argument("--runs-per-gpu", type=positive, help="runs at a time on each GPU; default 1")
    run.add_argument("--retries", type=whole, default=1, help="further attempts at a run that fails; default 1")
    run.add_argument("--timeout", type=whole, default=0, metavar="SECONDS", help="for one attempt; default 0, any")
    run.add_argument("--stall", type=whole, default=3600, metavar="SECONDS",
                     help="without a change in log or run directory; default 3600; 0, any")  # fmt: skip
    run.add_argument("--shard", default="1/1", metavar="k/N", help="only the k-th of N parts of the grid")
    run.add_argument("--executor", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    run.add_argument("--address", help="the Ray cluster's, or auto; default: local, one of this machine alone")
    run.add_argument("--replace", action="store_true", help="set runs with other flags, script or versions aside")
    run.add_argument("--dry-run", action="store_true", help="print the commands, what they supersede, and run nothing")

    report = commands.add_parser("report", help="turn runs into tables and plots")
    report.add_argument(
        "dir", type=Path, nargs="?", help=f"folder with the runs, or a report; default: the newest in {RUNS}"
    )
    report.add_argument("--out", type=Path, help="folder for the report; default <dir>/report")
    report.add_argument("--aggregate", choices=("iqm", "mean"), help="of the curves over seeds; default iqm")
    report.add_argument("--against", metavar="NAME", help="add a table of the differences to this algorithm")
    report.add_argument(
        "--log", nargs="+", action="extend", default=[], metavar="TAG", help="draw these logged values by steps too"
    )

    check = commands.add_parser("check", help="compare runs with stored results; exit status 1 if they are worse")
    check.add_argument("dir", type=Path, help="folder with the new runs")
    check.add_argument("--against", type=Path, required=True, help="results.csv of an earlier report")

    speed = commands.add_parser("speed", help="time the scripts, their peers and the environments, one at a time")
    speed.add_argument("--suite", default="speed", help="what is trained; default speed, whose comments say more")
    speed.add_argument("--dir", type=Path, help=f"folder for the measurements; default {RUNS}/<suite>")
    speed.add_argument("--repeats", type=positive, default=5, help="of every measurement; default 5")
    speed.add_argument("--seed", type=whole, default=0, help="repeat k has this seed + k; default 0")
    speed.add_argument("--only", nargs="+", choices=("pairs", "threshold", "environments", "num_envs"), metavar="PART",
                       help="of pairs, threshold, environments and num_envs; default all")  # fmt: skip

    gpu = commands.add_parser("gpu", help="time the scripts on the CPU and on a CUDA card, one run and many")
    gpu.add_argument("--dir", type=Path, default=RUNS / "gpu", help=f"folder for the measurements; default {RUNS}/gpu")
    gpu.add_argument("--device", nargs="+", choices=("cpu", "cuda"), default=["cpu", "cuda"], help="default both")
    gpu.add_argument("--only", nargs="+", metavar="PART", help="of control, language and grid; default all")
    gpu.add_argument("--repeats", type=positive, default=3, help="of every measurement but the grid; default 3")
    gpu.add_argument("--minutes", type=positive, default=9, help="begin no measurement later; default 9")
    gpu.add_argument("--short", action="store_true", help="an iteration of each, to see that everything works")

    args = parser.parse_args(words)
    if extra and args.command != "run":
        raise BadInput(f"{args.command} takes no flags for scripts: {shlex.join(extra)}")
    args.extra = tuple(extra)
    if args.command == "run":
        check_executor(args)
        args.gpus = parse_gpus(args.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")) if args.gpus is not None else []
        args.workers = len(args.gpus) * (args.runs_per_gpu or 1) or args.workers or cpus()
        if (args.gpus or args.runs_per_gpu) and not any(word.startswith("--device") for word in extra):
            args.extra += ("--device", "cuda")
    return args


def check_executor(args: argparse.Namespace) -> None:
    """Refuse flags that would have no effect."""
    if args.executor == "ray" and (args.gpus or args.workers):
        raise BadInput("--workers and --gpus are for the local pool; Ray takes --runs-per-gpu and places the runs")
    if args.executor == "local" and args.address:
        raise BadInput("--address is of a Ray cluster; add --executor ray")
    if args.executor == "local" and args.runs_per_gpu and not args.gpus:
        raise BadInput("--runs-per-gpu needs to know which GPUs: --gpus 0,1")


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run a grid; return the exit status."""
    directory = args.dir or RUNS / Path(args.suite).stem
    grid = make_jobs(
        load_suite(args.suite), directory.resolve(), args.environments, args.algorithms,
        None if args.seeds is None else parse_numbers(args.seeds), args.steps, args.extra,
    )  # fmt: skip
    jobs = take_shard(grid, *parse_shard(args.shard))
    others = [differences(job) for job in jobs]
    if args.dry_run:
        for i, (job, other) in enumerate(zip(jobs, others, strict=True)):
            variables = {"CUDA_VISIBLE_DEVICES": args.gpus[i % len(args.gpus)]} if args.gpus else {}
            words = [f"{name}={shlex.quote(value)}" for name, value in (variables | job.variables()).items()]
            words = [f"cd {shlex.quote(str(job.folder))} &&"] * bool(job.folder) + words
            print(*words, shlex.join(command(job)) + (f"  # supersedes a run: {'; '.join(other)}" if other else ""))
        return 0
    if any(others) and not args.replace:
        counts = Counter(what for other in others for what in other).most_common()
        raise BadInput(
            f"{sum(map(bool, others))} of {len(jobs)} runs in {directory} were made otherwise "
            f"({'; '.join(f'{what}: {n} runs' for what, n in counts)}); "
            "name another --dir, or set them aside and run anew with --replace"
        )
    if any(others):
        check_flags(jobs)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)  # the report's default is the folder that was last run
        save_grid(directory, grid)
    except OSError as error:
        raise BadInput(f"cannot use {directory}: {error.strerror}") from None

    records: list[tuple[Job, dict]] = []

    def on_done(job: Job, record: dict, workers: int) -> None:
        records.append((job, record))
        ran = [other["seconds"] * min(one.processes(), workers) for one, other in records if "seconds" in other]
        left = sum(ran) / max(len(ran), 1) * (len(jobs) - len(records)) / workers
        line = f"{len(records)}/{len(jobs)} {job.name}: {record['status']} {record.get('reason', '')}".rstrip()
        print(f"{line}; about {left:.0f} s left" if ran else line, flush=True)

    limits = {"retries": args.retries, "timeout": args.timeout, "stall": args.stall}
    if args.executor == "ray":
        from .ray_pool import run_ray

        run_ray(jobs, on_done, args.address or "local", args.runs_per_gpu, **limits)
    else:
        run_local(jobs, on_done, args.workers, args.gpus, **limits)
    return conclude(records, directory)


def conclude(records: list[tuple[Job, dict]], directory: Path) -> int:
    """Say how the grid went, list what failed with the end of its log, and return the exit status."""
    count = Counter(record["status"] for _, record in records)
    print(f"{directory}: {count['done']} runs done, {count['finished']} had been done before, {count['failed']} failed")
    if count["locked"]:
        print(f"{count['locked']} runs are left to the invocation that is at them")
    for job, record in records:
        if record["status"] == "failed":
            print(f"\nfailed: {job.name}: {record['reason']}; log: {job.directory / 'log.txt'}")
            for line in ending(read_output(job), 5):
                print(f"    {line}")
    return 1 if count["failed"] else 0


def report(args: argparse.Namespace) -> int:
    """Write a report; return the exit status."""
    from .report import write_report  # here, because to run takes no figures

    if args.dir is None:
        folders = [path.parent for path in RUNS.glob("*/grid.json")]
        if not folders:
            raise BadInput(f"there are no runs in {RUNS}; name a folder, or make some: python -m benchmark run smoke")
        args.dir = max(folders, key=lambda path: path.stat().st_mtime)
    if (args.dir / "speed.csv").exists():  # its run directories are no suite: one contestant stands there many times
        raise BadInput(f"{args.dir} is a folder of `speed`; its report is report.md in it")
    stored = (args.dir / "results.csv").exists()  # a report, which is made again where it lies
    out = args.out or (args.dir if stored else args.dir / "report")
    runs, problems = write_report(args.dir, out, args.aggregate, list(dict.fromkeys(args.log)), args.against)
    for problem in problems:
        print(f"problem: {problem}")
    not_done = sum(run.status != "done" for run in runs)
    print(f"{len(runs)} runs, {not_done} of them not done, {len(problems)} problems: {out / 'index.html'}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Compare with stored results; return the exit status."""
    from .check import check as compare

    lines, worse = compare(args.dir, args.against)
    print("\n".join(lines))
    return 1 if worse else 0


def speed(args: argparse.Namespace) -> int:
    """Measure speeds; return the exit status."""
    from .speed import speed as measure

    directory = args.dir or RUNS / Path(args.suite).stem
    return conclude(measure(load_suite(args.suite), directory, args.seed, args.repeats, args.only), directory)


def gpu(args: argparse.Namespace) -> int:
    """Measure what a GPU buys; return the exit status."""
    from .gpu import gpu as measure  # here, because it imports torch

    return measure(args.dir.resolve(), args.device, args.only, args.repeats, args.minutes, args.short)


def main(words: list[str]) -> int:
    """Run the command of these words; return the exit status."""
    try:
        args = parse_args(words)
        return {"run": run, "report": report, "check": check, "speed": speed, "gpu": gpu}[args.command](args)
    except BadInput as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except UnicodeEncodeError as error:  # TensorBoard cannot write there either
        part = error.object[max(error.start - 20, 0) : error.end + 20]
        print(f"error: the name of a folder is no UTF-8 in this locale, near {part!r}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
            signal.signal(number, signal.default_int_handler)  # each ends it as Ctrl-C does: children first
    sys.exit(main(sys.argv[1:]))
