"""Measures one of the scripts from outside, in a process of its own; `python -m benchmark speed` starts it.

python benchmark/measure.py shares ppo.py --run-dir DIR    # trains; DIR/shares.json says where the time went
python benchmark/measure.py bare ppo.py --run-dir DIR      # steps the script's environments with random actions only

What follows the script are its own flags. The script's text is not changed: its functions are wrapped once imported.
"""

import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType

ACTIONS = 1000  # joint actions drawn beforehand, used again and again: drawing one costs as much as a step
WARM_UP = 100  # steps of all environments before the clock starts


def shares(script: ModuleType) -> None:
    """Train with clocks around the environments' step and reset, Actor.sample and Run's record functions and save.

    shares.json gives each its share of the summary's wall_seconds; `update` lasts from the last record_step of a
    rollout to record_iteration, and `rest` is what none of them covers.
    """
    seconds, last_step, recording, after_the_end = Counter(), 0.0, False, 0.0

    def timed(label: str, function: Callable) -> Callable:
        @wraps(function)
        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[label] += time.perf_counter() - start

        return wrapper

    make_envs, record_step = script.make_envs, timed("logging", script.Run.record_step)
    record_iteration, save = timed("logging", script.Run.record_iteration), script.Run.save

    def make_timed_envs(args: object) -> object:
        envs = make_envs(args)
        envs.step, envs.reset = timed("environment", envs.step), timed("environment", envs.reset)
        return envs

    def mark_end_of_step(*args) -> None:
        nonlocal last_step
        record_step(*args)
        last_step = time.perf_counter()

    def mark_end_of_update(*args) -> None:
        nonlocal recording
        seconds["update"] += time.perf_counter() - last_step
        recording = True
        record_iteration(*args)
        recording = False

    def timed_save(run: object) -> None:
        nonlocal after_the_end
        if recording:  # a save of record_iteration's, whose clock is running
            save(run)
            return
        timed("logging", save)(run)
        after_the_end = time.perf_counter() - run.saved  # wall_seconds ends where the last save begins to write

    script.make_envs, script.Actor.sample = make_timed_envs, timed("policy", script.Actor.sample)
    script.Run.record_step, script.Run.record_iteration = mark_end_of_step, mark_end_of_update
    script.Run.save = timed_save
    args, checkpoint = script.parse_args()
    total = script.train(args, checkpoint)["wall_seconds"]
    seconds["logging"] -= after_the_end
    parts = {name: seconds[name] / total for name in ("environment", "policy", "update", "logging")}
    parts["rest"] = 1 - sum(parts.values())
    (args.run_dir / "shares.json").write_text(json.dumps(parts, indent=2))


def bare(script: ModuleType) -> None:
    """Step the environments that the script would train in; summary.json gives steps per second of all together."""
    args, _ = script.parse_args()
    envs = script.make_envs(args)
    envs.reset(seed=args.seed)
    envs.action_space.seed(args.seed)
    actions = cycle([envs.action_space.sample() for _ in range(ACTIONS)])
    for action in islice(actions, WARM_UP):
        envs.step(action)
    count = max(args.total_timesteps // args.num_envs, 1)
    start = time.perf_counter()
    for action in islice(actions, count):
        envs.step(action)
    seconds, steps = time.perf_counter() - start, count * args.num_envs
    envs.close()
    args.run_dir.mkdir(parents=True)
    summary = {"global_step": steps, "wall_seconds": seconds, "sps": steps / seconds}
    (args.run_dir / "summary.json").write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    what, path = {"shares": shares, "bare": bare}[sys.argv[1]], Path(sys.argv[2]).resolve()
    sys.argv = [str(path), *sys.argv[3:]]
    sys.path[0] = str(path.parent)  # in place of this folder, whose modules have common names
    try:
        what(importlib.import_module(path.stem))
    except KeyboardInterrupt:
        sys.exit(130)
