"""The command line: python -m benchmark run | report | tune | speed | gpu."""

import argparse
import os
import shlex
from pathlib import Path
from typing import NoReturn

from .grid import SUITES, parse_gpus
from .machine import cpus
from .words import BadInput

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


def parse_args(words: list[str]) -> argparse.Namespace:
    """The command line; what stands after a bare -- is kept as it is, for the scripts."""
    extra = []
    if "--" in words:
        words, extra = words[: words.index("--")], words[words.index("--") + 1 :]
    about = "Run the scripts over environments and seeds, and report."
    parser = Parser(prog="python -m benchmark", description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_run, add_report, add_tune, add_speed, add_gpu):
        add(commands)
    args = parser.parse_args(words)
    if extra and args.command not in ("run", "tune"):
        raise BadInput(f"{args.command} takes no flags for scripts: {shlex.join(extra)}")
    args.extra = tuple(extra)
    if args.command in ("run", "tune"):
        settle_executor(args)
    return args


def add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "run", help="run a suite; what is already done is not done again", epilog=EXAMPLES,
        usage="%(prog)s SUITE [options] [-- flags for every script]",
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    names = ", ".join(sorted(path.stem for path in SUITES.glob("*.toml")))
    add("suite", help=f"{names}, or a .toml file")
    add("--dir", type=Path, help=f"folder for the runs; default {RUNS}/<suite>")
    add("--environments", nargs="+", metavar="ENV", help="in place of the suite's")
    add("--algorithms", nargs="+", metavar="NAME", help="some of the suite's, with variants")
    add("--seeds", help="in place of the suite's, such as 1-5 or 1,2,8")
    what = "total timesteps of every run, in place of the suite's"
    add("--steps", type=positive, help=what)
    add_executor(parser)
    what = "set runs with other flags, script or versions aside"
    add("--replace", action="store_true", help=what)
    what = "print the commands, what they supersede, and run nothing"
    add("--dry-run", action="store_true", help=what)


def add_executor(parser: argparse.ArgumentParser) -> None:
    """The flags on where runs are made, and when one fails."""
    place, add = parser.add_mutually_exclusive_group(), parser.add_argument
    what = f"runs at a time; default {cpus()}, the CPUs"
    place.add_argument("--workers", type=positive, help=what)
    what = "GPUs such as 0-3 or 0,2, in place of --workers; implies -- --device cuda"
    place.add_argument("--gpus", help=what)
    add("--runs-per-gpu", type=positive, help="runs at a time on each GPU; default 1")
    what = "further attempts at a run that fails; default 1"
    add("--retries", type=whole, default=1, help=what)
    what = "for one attempt; default 0, any"
    add("--timeout", type=whole, default=0, metavar="SECONDS", help=what)
    what = "this machine, or a Ray cluster"
    add("--executor", choices=("local", "ray"), default="local", help=what)
    what = "the Ray cluster's, or auto; default: local, one of this machine alone"
    add("--address", help=what)


def settle_executor(args: argparse.Namespace) -> None:
    """Refuse flags that would have no effect, and find the workers and GPUs."""
    if args.executor == "ray" and (args.gpus or args.workers):
        what = "Ray takes --runs-per-gpu and places the runs"
        raise BadInput(f"--workers and --gpus are for the local pool; {what}")
    if args.executor == "local" and args.address:
        raise BadInput("--address is of a Ray cluster; add --executor ray")
    if args.executor == "local" and args.runs_per_gpu and not args.gpus:
        raise BadInput("--runs-per-gpu needs to know which GPUs: --gpus 0,1")
    gpus = args.gpus
    args.gpus = []
    if gpus is not None:
        args.gpus = parse_gpus(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    args.workers = len(args.gpus) * (args.runs_per_gpu or 1) or args.workers or cpus()
    placed = any(word.startswith("--device") for word in args.extra)
    if (args.gpus or args.runs_per_gpu) and not placed:
        args.extra += ("--device", "cuda")


def add_report(commands: argparse._SubParsersAction) -> None:
    add = commands.add_parser("report", help="turn runs into tables and plots").add_argument
    what = f"folder with the runs, or a report; default: the newest in {RUNS}"
    add("dir", type=Path, nargs="?", help=what)
    add("--out", type=Path, help="folder for the report; default <dir>/report")
    what = "add a table of the differences to this algorithm"
    add("--against", metavar="NAME", help=what)
    what = "draw these logged values by steps too"
    add("--log", nargs="+", action="extend", default=[], metavar="TAG", help=what)


def add_tune(commands: argparse._SubParsersAction) -> None:
    what = "search flags for a script on an environment"
    parser = commands.add_parser(
        "tune", help=what, usage="%(prog)s SCRIPT --env-id ENV [options] [-- flags of all runs]"
    )
    add, trained = parser.add_argument, parser.add_mutually_exclusive_group(required=True)
    add("script", help="ppo, or the path of any script that keeps the contract")
    trained.add_argument("--env-id", metavar="ENV", help="what it trains on")
    trained.add_argument("--task", help="likewise, for a language model's script")
    add("--env-kwargs", metavar="JSON", help="the environment's, for every run")
    add("--steps", type=positive, required=True, help="total timesteps of every run")
    add("--trials", type=positive, default=40, help="in all, of all shells; default 40")
    what = "what is varied: a table of spaces.toml, or FILE.toml:TABLE; default the script's"
    add("--space", metavar="NAME", help=what)
    what = "of a trial, at most; default 1000-1002"
    add("--seeds", default="1000-1002", help=what)
    what = "on which the best is run again; default 2000-2009"
    add("--fresh-seeds", default="2000-2009", help=what)
    what = "what is maximised: the area under the learning curve, or the final evaluation"
    add("--objective", choices=("area", "evaluation"), default="area", help=what)
    what = f"folder for the search; default {RUNS}/tune-<script>-<env>"
    add("--dir", type=Path, help=what)
    add_executor(parser)


def add_speed(commands: argparse._SubParsersAction) -> None:
    what = "time the scripts, their peers and the environments, one at a time"
    add = commands.add_parser("speed", help=what).add_argument
    what = "what is trained; default speed, whose comments say more"
    add("--suite", default="speed", help=what)
    add("--dir", type=Path, help=f"folder for the measurements; default {RUNS}/<suite>")
    add("--repeats", type=positive, default=5, help="of every measurement; default 5")
    add("--seed", type=whole, default=0, help="repeat k has this seed + k; default 0")
    parts = ("pairs", "environments", "num_envs")
    what = "of pairs, environments and num_envs; default all"
    add("--only", nargs="+", choices=parts, metavar="PART", help=what)


def add_gpu(commands: argparse._SubParsersAction) -> None:
    what = "time the scripts on the CPU and on a CUDA card"
    add = commands.add_parser("gpu", help=what).add_argument
    what = f"folder for the measurements; default {RUNS}/gpu"
    add("--dir", type=Path, default=RUNS / "gpu", help=what)
    both = ["cpu", "cuda"]
    add("--device", nargs="+", choices=both, default=both, help="default both")
    what = "control or language; default both"
    add("--only", nargs="+", choices=("control", "language"), help=what)
    what = "of every measurement; default 3"
    add("--repeats", type=positive, default=3, help=what)
    add("--minutes", type=positive, default=9, help="begin no measurement later; default 9")
    what = "an iteration of each, to see that everything works"
    add("--short", action="store_true", help=what)
