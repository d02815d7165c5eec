"""What several test files share: the scripts, small runs of them, and their flags."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import lockstep
import numpy as np
import pytest
import torch
from envs import Tape  # which registers the test environments
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tools import scaffold

ROOT = Path(__file__).resolve().parent.parent.parent
# A script is what tools/scaffold.py takes for one: no test lists them.
SOURCES = scaffold.find_scripts(ROOT)
EVERY = list(SOURCES)
SCRIPTS = [name for name in EVERY if scaffold.family(SOURCES[name]) == "control"]
LM_SCRIPTS = [name for name in EVERY if name not in SCRIPTS]
BOX = [name for name in SCRIPTS if re.search(r"env_id: .* with Box actions", SOURCES[name])]
DISCRETE = [name for name in SCRIPTS if name not in BOX]
PIXELS = [name for name in SCRIPTS if re.search(r"env_id: .*# images", SOURCES[name])]
GAUSSIAN = [name for name in BOX if "class RunningNorm" in SOURCES[name]]
WITH_GAE = [name for name in SCRIPTS if "\ndef gae(" in SOURCES[name]]
PARENTS = {name: (*scaffold.ladder(name, SOURCES), None)[1] for name in EVERY}

PATIENCE = 120  # seconds that a test waits for what must happen; the machine may be busy
SUMMARY = {
    "env_id": str, "script": str, "seed": int, "global_step": int, "wall_seconds": float,
    "sps": float, "train_return_mean": float, "train_episodes": int, "eval_return_mean": float,
    "eval_return_std": float, "eval_episodes": int,
}  # fmt: skip

# The scaffold is one text in all scripts (test_siblings.py), except the lines on actions: two
# scripts try it, and others where the loop is what matters, which is REINFORCE's, PPO's (and
# A2C's and TRPO's), A3C's or SAC's; one where it costs seconds.
one = pytest.mark.parametrize("script", ["ppo"])
two = pytest.mark.parametrize("script", ["reinforce", "ppo"])
pair = pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
loops = pytest.mark.parametrize("script", ["reinforce", "ppo", "ppo_continuous", "a3c", "sac"])


class Ended(Exception):
    """Raised by a test within train() when it has seen enough."""


def module(name: str) -> ModuleType:
    found = importlib.import_module(name)
    if name == "a3c":
        found.multiprocessing, found.connection = lockstep.multiprocessing, lockstep.connection
    return found


def fields(script: str) -> set[str]:
    return set(module(script).Args.__dataclass_fields__)


def env_id(script: str, discrete: str) -> str:
    """The name of a test environment in the version whose actions and observations `script`
    takes."""
    kind = "Box" if script in BOX else "Pixels" if script in PIXELS else ""
    return discrete.replace("-v", f"{kind}-v")


def benchmark_env(script: str) -> str:
    other = "MinAtar/Breakout-v1" if script in PIXELS else "CartPole-v1"
    return "Pendulum-v1" if script in BOX else other


def small(script: str) -> dict:
    """Flags that make an iteration of `script` short: 16 steps in each of 2 environments; in
    A3C of its one worker. SAC has no iterations longer than a step, but learns early."""
    flags = {"num_envs": 2, "num_steps": 16, "num_minibatches": 2, "eval_episodes": 2}
    flags |= {"num_workers": 1, "learning_starts": 16, "batch_size": 16, "torch_threads": 1}
    return {name: value for name, value in flags.items() if name in fields(script)}


def own_names(script: str, flags: dict) -> dict:
    """A3C has workers where the others have environments."""
    if script == "a3c" and "num_envs" in flags:
        flags = {"num_workers": flags["num_envs"]} | flags
        del flags["num_envs"]
    return flags


def checkpoint_of(run_dir: Path) -> dict:
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


def step_of(run_dir: Path) -> int:
    return checkpoint_of(run_dir)["counters"][0]


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def train(script: str, run_dir: Path, **flags) -> tuple[dict, dict]:
    """Run `script` in this process; return its summary and its last checkpoint."""
    args = module(script).Args(run_dir=run_dir, **(small(script) | own_names(script, flags)))
    summary = module(script).train(args)
    return summary, checkpoint_of(run_dir)


def command(script: str | Path, *arguments: object, **flags) -> list[str]:
    """The command line that runs `script` with small iterations."""
    path = ROOT / f"{script}.py" if isinstance(script, str) else script
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in flags.items()]
    words = [sys.executable, path, *arguments, *(word for pair in pairs for word in pair)]
    return [str(word) for word in words]


def environment(**more: str) -> dict[str, str]:
    """Environment variables with which programs can name the test environments as envs:NAME."""
    return os.environ | {"PYTHONPATH": str(ROOT / "tests" / "algorithms")} | more


def run(
    script: str | Path, *arguments: object, cwd: Path, **flags
) -> subprocess.CompletedProcess:
    """Run `script` as a program in `cwd`."""
    return subprocess.run(
        command(script, *arguments, **flags),
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def start(script: str | Path, cwd: Path, *arguments: object, **flags) -> subprocess.Popen:
    """`script` as a program in `cwd` that goes on while the test does."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = command(script, *arguments, **flags)
    return subprocess.Popen(words, cwd=cwd, env=environment(PYTHONUNBUFFERED="1"), **pipes)


def wait_until_beyond(step: int, process: subprocess.Popen, run_dir: Path) -> None:
    """Until `process` has written a checkpoint of a later step, in another second than it began
    its event file: TensorBoard sorts sessions of one second by process, not by time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        with suppress(FileNotFoundError, ValueError):
            begun = max(int(path.name.split(".")[3]) for path in run_dir.glob("events.*"))
            if step_of(run_dir) > step and time.time() > begun + 1:
                return
        time.sleep(0.05)
    raise AssertionError("no progress")


def interrupted(process: subprocess.Popen) -> tuple[str, str]:
    """Press Ctrl-C, as a user does: again where the first came at a bad moment. What the
    process wrote to its streams."""
    for patience in (30, 30, 60):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=patience)
    raise AssertionError("it does not end")


def pasted(script: str, monkeypatch) -> dict:
    """The names that `script` defines when it is pasted into a notebook: a cell's namespace is
    __main__'s but has no __file__."""
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    names = {"__name__": "__main__"}
    exec(
        compile((ROOT / f"{script}.py").read_text(), "<cell>", "exec", dont_inherit=True), names
    )
    return names


def changed(args, other: dict) -> Iterator[tuple[str, object]]:
    """`args` with each hyperparameter changed in turn, and its name: numbers and switches to
    what differs, the rest to what `other` says."""
    free = {"total_timesteps", "device", "torch_threads", "log_interval", "checkpoint_interval"}
    free |= {"eval_episodes", "resume", "run_dir"}
    for name in set(args.__dataclass_fields__) - free:
        value, new = getattr(args, name), other.get(name)
        if isinstance(value, bool):
            new = not value
        elif isinstance(value, int | float):
            new = value + 1 if isinstance(value, int) else value / 2 + 0.07
        yield name, replace(args, **{name: new})


def scalars(run_dir: Path) -> dict[str, list]:
    """All scalar events of a run by tag, in the order of their steps, as TensorBoard has
    them."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def copied(state):
    """A deep copy of a state_dict, or of a nest of them."""
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state.clone() if isinstance(state, torch.Tensor) else state


def same(a, b) -> bool:
    """Whether two state_dicts, or nests of them, are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def networks(run) -> dict[str, dict]:
    """The networks of a Run as they are now."""
    return {
        name: copied(run.state[name].state_dict())
        for name in ("actor", "critic")
        if name in run.state
    }


def transitions(
    num_envs: int, num_steps: int, drawn_actions: np.ndarray | None = None
) -> list[list[tuple]]:
    """What the environments saw, cut to the segment: num_steps transitions for each, in order.

    Tape starts an episode list at every reset, in the order of resets. The first num_envs lists
    belong to the environments in turn, and a new list to the one whose episode just ended.
    """
    episodes = Tape.episodes
    owner = {i: i for i in range(num_envs)}
    tapes, following = [[] for _ in range(num_envs)], num_envs
    position = dict.fromkeys(range(num_envs), 0)
    for _ in range(num_steps):
        for env in range(num_envs):
            step = episodes[owner[env]][position[env]]
            tapes[env].append(step)
            position[env] += 1
            if step[4] or step[5]:
                owner[env], position[env] = following, 0
                following += 1
    if drawn_actions is not None:  # not those that the environment saw, clipped and rescaled
        tapes = [
            [(step[0], drawn_actions[t, env], *step[2:]) for t, step in enumerate(tape)]
            for env, tape in enumerate(tapes)
        ]
    return tapes


def gae_by_definition(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """A_t = sum over l of (gamma lambda)^l delta_{t+l}, up to the end of the episode or of the
    segment: O(T^2). Arrays (num_steps, num_envs)."""
    num_steps, num_envs = rewards.shape
    advantages = np.zeros((num_steps, num_envs))
    for env in range(num_envs):
        for t in range(num_steps):
            for k in range(t, num_steps):
                bootstrap = 0.0 if terminated[k, env] else next_values[k, env]
                delta = rewards[k, env] + gamma * bootstrap - values[k, env]
                advantages[t, env] += (gamma * gae_lambda) ** (k - t) * delta
                if terminated[k, env] or truncated[k, env]:
                    break
    return advantages


class Recorder:
    """Takes notes of a run: its state before the first iteration and after each, what it
    logged, and the order of its minibatches."""

    def __init__(self):
        self.states, self.logged, self.orders, self.models = [], [], [], {}

    def watch(self, found: ModuleType, monkeypatch) -> None:
        start, record, randperm = found.Run.start, found.Run.record_iteration, torch.randperm

        def note_state(run):
            state = {name: copied(part.state_dict()) for name, part in run.state.items()}
            self.states.append(state)

        def note_start(run, state, total_steps):
            self.models.update(state)
            start(run, state, total_steps)
            note_state(run)

        def note_iteration(run, *args):
            record(run, *args)
            note_state(run)
            self.logged.append({name: float(value) for name, value in args[-1].items()})

        def note_order(n, **kwargs):
            self.orders.append(randperm(n, **kwargs))
            return self.orders[-1]

        monkeypatch.setattr(found.Run, "start", note_start)
        monkeypatch.setattr(found.Run, "record_iteration", note_iteration)
        monkeypatch.setattr(torch, "randperm", note_order)
