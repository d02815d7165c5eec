"""The scripts used from Python: train() in a program, a search loop or a notebook."""

import json
import math
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    SCRIPTS,
    benchmark_env,
    checkpoint_of,
    env_id,
    fields,
    loops,
    module,
    pair,
    pasted,
    small,
    summary_of,
    train,
)


@pair
def test_the_default_run_directory(script, tmp_path, monkeypatch):
    """runs/<env_id>__<script>__<seed>__<time> in the working directory; two runs that begin
    within one second have one each; what train() returns is the summary."""
    monkeypatch.chdir(tmp_path)
    found, name = module(script), benchmark_env(script)
    args = found.Args(total_timesteps=64, seed=3, **small(script))
    before = asdict(args)
    summaries = [found.train(args) for _ in range(3)]
    assert asdict(args) == before, "train() has changed its caller's flags"
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 3
    for folder, summary in zip(folders, summaries, strict=True):
        assert folder.name.startswith(f"{name}__{script}__3__")
        assert summary_of(folder) == summary
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_names_of_environments_make_one_folder(tmp_path, monkeypatch):
    """Neither a namespace nor a module makes folders of its own."""
    found = module("ppo")
    for name in ("ALE/Pong-v5", "envs:Tape-v0", "a\\b:c/d-v0"):
        run_dir = found.check_args(found.Args(env_id=name)).run_dir
        assert run_dir.parent == Path.cwd() / "runs"
        assert ":" not in run_dir.name


@pair
def test_paths_may_be_strings_and_numbers_floats(script, tmp_path):
    found, run_dir = module(script), f"{tmp_path}/run"
    flags = small(script) | {"env_id": benchmark_env(script), "run_dir": run_dir}
    found.train(found.Args(**flags, total_timesteps=1e2, learning_rate=1))
    summary = found.train(found.Args(resume=run_dir, total_timesteps=np.float64(128.0)))
    assert summary["global_step"] == 128
    summary = found.train(
        found.Args(resume=f"{run_dir}/checkpoint.pt", eval_episodes=np.int64(3))
    )
    assert summary["eval_episodes"] == 3
    args = json.loads((Path(run_dir) / "args.json").read_text())
    assert args["total_timesteps"] == 100
    assert {"run_dir", "script", "script_sha256", "versions"} <= set(args)


@pair
@pytest.mark.parametrize(
    "flags",
    [{"norm_adv": np.bool_(True)}, {"env_id": np.str_("Tape-v0")}, {"device": np.str_("cpu")}],
    ids=str,
)
def test_other_scalars_of_numpy_work_or_are_refused(script, flags, tmp_path):
    """What a search loop draws with numpy.random.choice: a run that starts can be resumed."""
    found = module(script)
    name = env_id(script, "Tape-v0")
    if "env_id" in flags:
        flags = {"env_id": np.str_(name)}
    usual = small(script) | {"env_id": name, "run_dir": tmp_path / "run", "total_timesteps": 64}
    with suppress(found.BadInput):
        found.train(found.Args(**usual | flags))
    if (tmp_path / "run").exists():
        assert checkpoint_of(tmp_path / "run")["counters"][0] == 64


@loops
def test_a_resume_takes_the_runs_own_flags(script, tmp_path):
    found, name = module(script), env_id(script, "Tape-v0")
    train(script, tmp_path / "run", env_id=name, total_timesteps=64, seed=5, gamma=0.5)
    summary = found.train(found.Args(resume=tmp_path / "run", total_timesteps=128))
    assert (summary["seed"], summary["env_id"], summary["eval_episodes"]) == (5, name, 2)
    assert checkpoint_of(tmp_path / "run")["args"]["gamma"] == 0.5


@pair
@pytest.mark.parametrize("fate", ["success", "bad input", "failure", "exception", "interrupt"])
def test_the_callers_settings_are_given_back(
    script, fate, tmp_path, monkeypatch, settings_of_torch
):
    """Its number of threads, however the run ends."""
    torch.set_default_dtype(torch.float32)
    found, name, inside = module(script), env_id(script, "Faulty-v0"), []
    record = found.Run.record_iteration

    def note(run, losses):
        inside.append(torch.get_num_threads())
        record(run, losses)
        if fate == "exception":
            raise ZeroDivisionError
        if fate == "interrupt":
            raise KeyboardInterrupt

    monkeypatch.setattr(found.Run, "record_iteration", note)
    sys.modules["envs"].Faulty.steps = 0
    kwargs = json.dumps({"kind": "reward", "at": 50 if fate == "failure" else 0})
    flags = {"env_kwargs": kwargs, "total_timesteps": 64}
    if fate == "bad input":
        (tmp_path / "run").mkdir()
    errors = {
        "success": (), "bad input": found.BadInput, "failure": FloatingPointError,
        "exception": ZeroDivisionError, "interrupt": KeyboardInterrupt,
    }  # fmt: skip
    if fate == "success":
        train(script, tmp_path / "run", env_id=name, **flags)
    else:
        with pytest.raises(errors[fate]):
            train(script, tmp_path / "run", env_id=name, **flags)
    assert torch.get_num_threads() == 3
    if fate != "bad input":
        assert inside[0] == 1


@pair
def test_a_failed_run_releases_its_directory(script, tmp_path, monkeypatch):
    """In the same process, at once: what failed can be resumed."""
    found, name = module(script), env_id(script, "Faulty-v0")
    monkeypatch.setattr(sys.modules["envs"].Faulty, "steps", 0)
    flags = {"env_kwargs": '{"kind": "step", "at": 50}', "total_timesteps": 64}
    with pytest.raises(ValueError, match="simulator"):
        train(script, tmp_path / "run", env_id=name, **flags)
    assert found.train(found.Args(resume=tmp_path / "run"))["global_step"] == 64


@pair
def test_a_run_in_a_thread(script, tmp_path):
    """Not the main thread, as in a notebook's or a web server's background job."""
    found, results = module(script), []
    args = found.Args(
        run_dir=tmp_path / "run",
        env_id=benchmark_env(script),
        total_timesteps=64,
        **small(script),
    )
    thread = threading.Thread(target=lambda: results.append(found.train(args)))
    thread.start()
    thread.join()
    assert results[0]["global_step"] == 64


@pair
def test_two_runs_cannot_share_a_directory_in_one_process_either(script, tmp_path, monkeypatch):
    found, name, refusals = module(script), env_id(script, "Tape-v0"), []
    record = found.Run.record_iteration

    def second(run, losses):
        record(run, losses)
        if not refusals:
            for flags in ({"resume": tmp_path / "run"}, {"run_dir": tmp_path / "run"}):
                with pytest.raises(found.BadInput) as refusal:
                    found.train(found.Args(env_id=name, **flags))
                refusals.append(str(refusal.value))

    monkeypatch.setattr(found.Run, "record_iteration", second)
    train(script, tmp_path / "run", env_id=name, total_timesteps=64)
    assert len(refusals) == 2
    assert all(str(tmp_path / "run") in text for text in refusals)


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "a3c"])
def test_pasted_into_a_notebook_it_only_defines(script, tmp_path, monkeypatch, capsys):
    """Its train() works, and can resume."""
    monkeypatch.chdir(tmp_path)
    names = pasted(script, monkeypatch)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    flags = small(script) | {"env_id": benchmark_env(script), "total_timesteps": 64}
    summary = names["train"](names["Args"](**flags))
    assert summary["global_step"] > 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert summary_of(run_dir) == summary
    again = names["train"](names["Args"](resume=run_dir, eval_episodes=3))
    assert again["eval_episodes"] == 3
    assert json.loads((run_dir / "args.json").read_text())["script_sha256"] is None


def test_train_never_exits_the_process(script, tmp_path, monkeypatch):
    """Neither sys.exit nor print to standard error: an exception says what is wrong."""
    found = module(script)
    monkeypatch.setattr(sys, "exit", None)
    for flags in ({"env_id": "CartPol-v1"}, {"gamma": math.nan}, {"resume": tmp_path / "none"}):
        with pytest.raises(found.BadInput):
            found.train(found.Args(**flags))
    source = (ROOT / f"{script}.py").read_text()
    above, below = source.split('\nif __name__ == "__main__"')
    assert "sys.exit" not in above
    assert "sys.exit" in below
    assert "total_timesteps" in fields(script)


@pair
def test_a_run_of_another_device_is_refused_or_goes_on_elsewhere(script, tmp_path):
    """One made on a card, resumed where there is none: BadInput, and the cpu if it is asked
    for."""
    found, run_dir = module(script), tmp_path / "run"
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64)
    checkpoint = checkpoint_of(run_dir)
    checkpoint["args"]["device"] = "mps"
    torch.save(checkpoint, run_dir / "checkpoint.pt")
    args = found.Args(resume=run_dir, total_timesteps=128)
    with pytest.raises(found.BadInput, match="no device mps"):
        found.train(args)
    args = replace(found.check_args(args), device="cpu")
    assert found.train(args)["global_step"] == 128
