"""Where a script's time goes: steps per second, the shares of environments, forward passes and
updates in it, and the memory of the process at its peak.

    python tools/where_time_goes.py ppo_images.py --num-envs 8 --torch-threads 1

The flags are the script's own. It runs in this process, with clocks around some of its
functions. `environment` is the time in step() and reset(), `update` that between the last step
of a rollout and its log, advantages included, `forward` the rest of training: networks and
storage in the rollout, events, checkpoints. Not for a3c.py, whose environments are elsewhere.
"""

import importlib.util
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import tyro


def watch(script) -> dict[str, float]:
    """Put clocks into a script; return the seconds, which are those at its last log."""
    inside, seconds, ended = [0.0], {"environment": 0.0, "update": 0.0}, [0.0]
    make_env, run = script.make_env, script.Run
    record_step, record_iteration = run.record_step, run.record_iteration

    def clocked(function, *args, **kwargs):
        begun = perf_counter()
        result = function(*args, **kwargs)
        inside[0] += perf_counter() - begun
        return result

    def make(*args, **kwargs):
        env = make_env(*args, **kwargs)
        env.step, env.reset = partial(clocked, env.step), partial(clocked, env.reset)
        return env

    def step(self, *args):
        record_step(self, *args)
        ended[0] = perf_counter()

    def iteration(self, losses):
        seconds["update"] += perf_counter() - ended[0]
        seconds["environment"] = inside[0]
        record_iteration(self, losses)

    script.make_env, run.record_step, run.record_iteration = make, step, iteration
    return seconds


if __name__ == "__main__":
    path, words = Path(sys.argv[1]), sys.argv[2:]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    seconds = watch(script)
    with tempfile.TemporaryDirectory() as folder:
        args = tyro.cli(script.Args, args=[*words, "--run-dir", f"{folder}/run"])
        summary = script.train(args)
    seconds["forward"] = summary["wall_seconds"] - sum(seconds.values())
    shares = [f"{name} {x / summary['wall_seconds']:.0%}" for name, x in seconds.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # which Linux has in KiB
    flags = f"{path.name}, num_envs {args.num_envs}, torch_threads {args.torch_threads}"
    print(f"{flags}: {summary['sps']:,.0f} steps/s; {', '.join(shares)}; {peak:,.0f} MiB")
