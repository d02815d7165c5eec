"""What a GPU buys: the scripts on the CPU and on the GPU, each run alone.

The folder holds
    gpu.csv        one row for each quantity of each measurement, which is not made again
    report.md      medians of the repeats
    runs/          what each measurement printed, and its run directory
"""

import functools
import importlib.util
import json
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from types import ModuleType

import torch

from .files import read_csv, write_atomically, write_csv
from .grid import ROOT
from .machine import cpu_model, cpus, installed_version
from .words import BadInput

PARTS = ("control", "language")
COLUMNS = [
    "part", "script", "setting", "device", "repeat", "quantity", "value", "unit", "system",
]  # fmt: skip
SPEEDS = {"steps_per_second", "tokens_per_second"}
UNITS = {
    "steps_per_second": "steps/s", "tokens_per_second": "tokens/s", "peak_memory": "MiB",
    "failed": "",
}  # fmt: skip
CONTROL = {8: 32, 64: 16, 512: 8}  # environments -> iterations, seconds on either device
FLAGS = {
    "ppo": {"env_id": "CartPole-v1", "num_steps": 32, "num_minibatches": 2, "update_epochs": 5},
    "ppo_images": {
        "env_id": "MinAtar/Breakout-v1", "num_steps": 32, "num_minibatches": 8,
        "update_epochs": 4,
    },
    "ppo_continuous": {
        "env_id": "HalfCheetah-v5", "num_steps": 64, "num_minibatches": 4, "update_epochs": 10,
    },
}  # fmt: skip
SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.py"))}
LANGUAGE = [name for name, text in SCRIPTS.items() if "\nclass GPT(" in text]
LARGE = {"width": 512, "layers": 8, "heads": 8}  # sizes of the GPT: 25 million weights
TINY = {"width": 32, "layers": 1}


@dataclass(frozen=True)
class Case:
    """What one row's measurement runs."""

    part: str
    script: str
    setting: str
    device: str
    flags: dict
    model: dict | None = None  # sizes of the GPT that are not the script's own

    def key(self, repeat: int) -> tuple[str, ...]:
        return self.part, self.script, self.setting, self.device, str(repeat)


def make_cases(devices: list[str], only: Sequence[str], short: bool) -> list[Case]:
    """All that is measured, devices side by side. `short` is to see that everything works."""
    cases = []
    for script, flags in FLAGS.items() if "control" in only else ():
        for num_envs, iterations in {8: 1}.items() if short else CONTROL.items():
            steps = num_envs * flags["num_steps"] * iterations
            given = flags | {"num_envs": num_envs, "total_timesteps": steps, "eval_episodes": 1}
            setting = f"{flags['env_id'].split('/')[-1]}, {num_envs} environments"
            cases += [Case("control", script, setting, device, given) for device in devices]
    sizes = [("default model", {}, 512, 4, {})]
    flags = {"max_completion_length": 26, "torch_threads": cpus()}
    sizes += [(f"25M weights, batches of {size}", LARGE, size, 2, flags) for size in (128, 512)]
    for setting, model, size, iterations, flags in sizes if "language" in only else ():
        if short:
            size, iterations, model = 16, 1, model and TINY
        given = {"batch_size": size, "total_timesteps": size * iterations, "eval_episodes": 8}
        given |= flags | {"log_interval": 1_000_000}
        given |= {"num_preferences": size, "preference_rounds": 1}
        for script in ("grpo",) if setting.endswith("512") else LANGUAGE:
            about = "language", script, setting
            cases += [Case(*about, device, given, model) for device in devices]
    return cases


def system() -> str:
    """The machine and the versions that a timing depends on."""
    modules = ("python", "torch", "gymnasium", "numpy", "mujoco")
    parts = [f"{cpu_model()}, {cpus()} CPUs"]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    versions = ", ".join(f"{name} {installed_version(name)}" for name in modules)
    return "; ".join([*parts, versions])


# ==============================================================================================
# One measurement
# ==============================================================================================
def fresh(name: str) -> ModuleType:
    """A copy of the script as a module of its own: measurements wrap its functions."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def make_args(
    script: ModuleType, case: Case, seed: int, folder: Path, **more: object
) -> object:
    """The script's Args, from those of the case's flags that it has."""
    known = script.Args.__dataclass_fields__
    flags = {name: value for name, value in case.flags.items() if name in known} | more
    return script.Args(**flags, seed=seed, device=case.device, run_dir=folder / "run")


def measure_control(case: Case, seed: int, folder: Path) -> dict[str, float]:
    """Steps per second."""
    script = fresh(case.script)
    summary = script.train(make_args(script, case, seed, folder))
    return {"steps_per_second": summary["sps"]}


def measure_language(case: Case, seed: int, folder: Path) -> dict[str, float]:
    """Tokens sampled and learned from per second of training, and the GPU's memory at its peak.
    The base model has random weights: only the speed is asked for."""
    script, tokens = fresh(case.script), 0
    script.GPT.__init__ = functools.partialmethod(script.GPT.__init__, **case.model)
    base = folder / "base.pt"
    kwargs = json.dumps({"base_model": str(base)})
    args = make_args(script, case, seed, folder, task_kwargs=kwargs)
    torch.manual_seed(0)
    torch.save({"reference": script.GPT().state_dict()}, base)
    record_step = script.Run.record_step

    def count_tokens(run, rewards, lengths):
        nonlocal tokens
        tokens += int(lengths.sum())
        record_step(run, rewards, lengths)

    script.Run.record_step = count_tokens
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = script.train(args)["wall_seconds"]
    values = {"tokens_per_second": tokens / seconds}
    if case.device == "cuda":
        values["peak_memory"] = torch.cuda.max_memory_allocated() / 2**20
    return values


# ==============================================================================================
# All of them
# ==============================================================================================
def load_rows(path: Path) -> list[dict[str, str]]:
    """The rows of gpu.csv; none where there is no such file. Refuses a folder that is not this
    command's."""
    if not path.exists():
        if path.parent.exists() and (not path.parent.is_dir() or any(path.parent.iterdir())):
            what = f"{path.parent} is not empty and has no {path.name}; name another --dir"
            raise BadInput(what)
        return []
    rows = read_csv(path)
    try:
        good = all(list(row) == COLUMNS and math.isfinite(float(row["value"])) for row in rows)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise BadInput(f"{path} is no table of this command, or damaged; name another --dir")
    return rows


def save_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write gpu.csv anew: a kill never leaves half a row."""
    write_csv(path, COLUMNS, [[row[name] for name in COLUMNS] for row in rows])


def gpu(
    directory: Path,
    devices: list[str],
    only: list[str] | None,
    repeats: int,
    minutes: float,
    short: bool,
) -> int:
    """Measure what is not yet in `directory`, until `minutes` have passed, and report; return
    the exit status."""
    if "cuda" in devices and not torch.cuda.is_available():
        raise BadInput("PyTorch finds no CUDA card here; --device cpu measures without one")
    path, deadline = directory / "gpu.csv", time.monotonic() + 60 * minutes
    rows, here = load_rows(path), f"{system()}; short" if short else system()
    if any(row["system"] != here for row in rows):
        what = f"{path} holds measurements of another machine or other versions"
        raise BadInput(f"{what}; name another --dir")
    directory.mkdir(parents=True, exist_ok=True)
    rows = [row for row in rows if row["quantity"] != "failed"]  # another try
    save_rows(path, rows)  # even an empty table marks the folder as this command's
    done = {tuple(row[name] for name in COLUMNS[:5]) for row in rows}
    cases, late = make_cases(devices, only or PARTS, short), 0
    for repeat, case in product(range(1, repeats + 1), cases):
        if case.key(repeat) in done:
            continue
        if time.monotonic() > deadline:
            late += 1
            continue
        values = run_case(case, repeat, directory / "runs")
        for name, value in values.items():
            row = (*case.key(repeat), name, f"{value:.6g}", UNITS[name], here)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        save_rows(path, rows)
        shown = "; ".join(f"{name} {value:,.6g}" for name, value in values.items())
        print(f"{case.script}, {case.setting}, {case.device}, {repeat}: {shown}", flush=True)
    failed = sum(row["quantity"] == "failed" for row in rows)
    write_atomically(directory / "report.md", report(rows).encode())
    counts = f"{len(rows)} rows, {failed} failed, {late} not measured for want of time"
    print(f"{counts}: {directory / 'report.md'}")
    return 1 if failed or late else 0


def run_case(case: Case, repeat: int, runs: Path) -> dict[str, float]:
    """The quantities of one measurement; "failed" where it raised, whose log says why."""
    name = "__".join(case.key(repeat)[1:]).replace(" ", "-").replace(",", "")
    places = (runs / f"{name}{suffix}" for suffix in ("", *(f"__{k}" for k in range(2, 1000))))
    folder = next(place for place in places if not place.exists())  # one that was stopped stays
    folder.mkdir(parents=True)
    log = (folder / "log.txt").open("w", encoding="utf-8")
    with log, redirect_stdout(log), redirect_stderr(log):
        try:
            if case.part == "control":
                return measure_control(case, repeat, folder)
            return measure_language(case, repeat, folder)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            return {"failed": 1.0}
        finally:
            # A checkpoint of the large model takes 300 MB.
            shutil.rmtree(folder / "run", ignore_errors=True)
            (folder / "base.pt").unlink(missing_ok=True)
            if case.device == "cuda":
                torch.cuda.empty_cache()


def report(rows: list[dict[str, str]]) -> str:
    """The table: medians of the repeats, with how many times as fast as the CPU the GPU is."""
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        cell = cells.setdefault((row["script"], row["setting"], row["device"]), {})
        cell.setdefault(row["quantity"], []).append(float(row["value"]))
    lines = [
        "# CPU and GPU",
        "",
        f"Made by `python -m benchmark gpu` on: {rows[0]['system'] if rows else 'nothing'}.",
        "Medians of the n repeats in `gpu.csv`. Memory is PyTorch's peak on the GPU.",
        "",
        "| script | setting | device | n | speed | memory | times the CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for (script, setting, device), cell in cells.items():
        speed, n, ratio = "failed", 0, ""
        for name in SPEEDS & cell.keys():
            speed, n = f"{median(cell[name]):,.0f} {UNITS[name]}", len(cell[name])
            base = cells.get((script, setting, "cpu"), {}).get(name)
            if base and device != "cpu":
                ratio = f"{median(cell[name]) / median(base):.2f}"
        memory = f"{median(cell['peak_memory']):,.0f} MiB" if "peak_memory" in cell else ""
        row = [script, setting, device, str(n), speed, memory, ratio]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, ""])
