"""A script that keeps the contract of the real ones but learns nothing, and misbehaves as
--behaviour tells it.

Each start adds a line to history.txt beside the run directory.
"""

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-id")
    parser.add_argument("--task")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--total-timesteps", type=int)
    parser.add_argument("--torch-threads", type=int)
    parser.add_argument("--eval-episodes", type=int)
    parser.add_argument("--device")
    parser.add_argument("--behaviour", default="ok")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", type=Path)
    args = parser.parse_args()
    run_dir = args.resume or args.run_dir
    if args.run_dir and args.run_dir.exists():
        print(f"error: {run_dir} exists", file=sys.stderr)
        sys.exit(2)
    history = run_dir.parent / "history.txt"
    starts = len(history.read_text().splitlines()) if history.exists() else 0
    with history.open("a") as file:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        print("resume" if args.resume else "start", os.getpid(), gpu, file=file)

    if args.resume:
        checkpoint = (run_dir / "checkpoint.pt").read_text()
        if checkpoint == "damaged":
            print("error: the checkpoint is damaged", file=sys.stderr)
            sys.exit(2)
        args = argparse.Namespace(**json.loads(checkpoint))
    behaviour = args.behaviour
    if behaviour == "crash":
        sys.exit("Traceback: it crashed at once")
    if behaviour == "refuse":
        print("error: --behaviour refuse cannot work", file=sys.stderr)
        sys.exit(2)
    run_dir.mkdir(parents=True, exist_ok=True)
    flags = vars(args) | {"run_dir": str(run_dir), "resume": None}
    about = {
        "script": Path(__file__).name,
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "versions": {"python": platform.python_version(), "numpy": version("numpy") + "+local"},
        "device": "cpu",
    }
    given = {name: value for name, value in flags.items() if value is not None}
    (run_dir / "args.json").write_text(json.dumps(given | about))
    if behaviour == "no-checkpoint" and starts == 0:
        sys.exit(1)
    (run_dir / "checkpoint.pt").write_text(json.dumps(flags))
    if behaviour == "hang":
        deaf = (
            "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
        )
        child = subprocess.Popen([sys.executable, "-c", deaf])
        (run_dir.parent / "child.txt").write_text(f"{child.pid}\n")
        # a child of its own, which does not end when asked kindly
        time.sleep(60)
    if behaviour == "kill-parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "no-summary":
        return
    if behaviour == "flaky" and starts == 0:
        sys.exit(1)
    if behaviour == "big":
        (run_dir / "events").write_bytes(bytes(1_000_000))
    if behaviour == "wait":
        print(f"step 81,920, return {args.seed + 0.5}, 100 steps/s", flush=True)
        deadline = time.monotonic() + 120  # where the test broke down, nobody will say go
        while not (run_dir.parent.parent / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    summary = {
        "env_id": args.task or args.env_id,
        "script": Path(__file__).name,
        "seed": args.seed,
        "global_step": args.total_timesteps,
        "wall_seconds": 1.0,
        "sps": 1.0,
        "train_return_mean": None,
        "train_episodes": 0,
        "eval_return_mean": float("nan") if behaviour == "nan" else 1.0,
        "eval_return_std": 0.0,
        "eval_episodes": 1,
    }
    (run_dir / "summary.json").write_text(json.dumps(summary))
    if behaviour == "hang-at-the-end":
        time.sleep(120)


if __name__ == "__main__":
    main()
