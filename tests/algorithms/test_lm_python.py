"""The scripts for language models used from Python: train() in a program or a notebook."""

import json
import math
import threading
from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers import ROOT, checkpoint_of, module, pasted, same, summary_of
from lm_helpers import every, flags_of, random_base, some_reward, train, with_reward


@every
def test_the_default_run_directory(script, tmp_path, monkeypatch):
    """Two runs that begin within one second have one each; what train() returns is the
    summary, and the caller's flags stay as they were."""
    monkeypatch.chdir(tmp_path)
    found = module(script)
    args = found.Args(**flags_of(script, tmp_path, run_dir=None, seed=3, total_timesteps=16))
    before = asdict(args)
    summaries = [found.train(args) for _ in range(2)]
    assert asdict(args) == before
    folders = sorted((tmp_path / "runs").iterdir())
    for folder, summary in zip(folders, summaries, strict=True):
        assert folder.name.startswith(f"addition__{script}__3__")
        assert summary_of(folder) == summary


@every
def test_other_seeds_have_other_bits(script, tmp_path, monkeypatch):
    with_reward(module(script), monkeypatch, some_reward)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(script, tmp_path, run_dir=tmp_path / name, seed=seed)
    a, b, c = (checkpoint_of(tmp_path / name) for name in "abc")
    assert same(a["policy"], b["policy"])
    assert not same(a["policy"], c["policy"])
    assert same(a["reference"], c["reference"])


@every
def test_numbers_may_be_of_numpy_and_paths_strings(script, tmp_path):
    train(
        script, tmp_path, run_dir=f"{tmp_path}/run", total_timesteps=np.float64(3.2e1),
        seed=np.int64(5), temperature=np.float32(0.5), learning_rate=0,
    )  # fmt: skip
    found = module(script)
    summary = found.train(found.Args(resume=f"{tmp_path}/run", total_timesteps=64.0))
    assert (summary["global_step"], summary["seed"]) == (64, 5)


@every
@pytest.mark.parametrize("fate", ["success", "failure", "interrupt"])
def test_the_callers_settings_are_given_back(
    script, fate, tmp_path, monkeypatch, settings_of_torch
):
    inside = []

    def reward(prompt, answer):
        inside.append((torch.get_num_threads(), torch.get_default_dtype()))
        if fate == "interrupt":
            raise KeyboardInterrupt
        return math.nan if fate == "failure" else 0.0

    random_base(tmp_path / "base.pt")
    with_reward(module(script), monkeypatch, reward)
    errors = {"failure": FloatingPointError, "interrupt": KeyboardInterrupt}
    if fate == "success":
        train(script, tmp_path, total_timesteps=16)
        weights = checkpoint_of(tmp_path / "run")["policy"].values()
        assert {v.dtype for v in weights} == {torch.float32}
    else:
        with pytest.raises(errors[fate]):
            train(script, tmp_path, total_timesteps=16)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (3, torch.float64)
    assert inside[0] == (1, torch.float32)


def test_a_run_in_a_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train("grpo", tmp_path)))
    thread.start()
    thread.join()
    assert results[0]["global_step"] == 48


@every
def test_pasted_into_a_notebook_it_only_defines(script, tmp_path, monkeypatch, capsys):
    """Its train() works, and can resume."""
    monkeypatch.chdir(tmp_path)
    names = pasted(script, monkeypatch)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    flags = flags_of(script, tmp_path, run_dir=None, total_timesteps=32)
    summary = names["train"](names["Args"](**flags))
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert summary_of(run_dir) == summary
    again = names["train"](names["Args"](resume=run_dir, eval_episodes=3))
    assert again["eval_episodes"] == 3
    assert json.loads((run_dir / "args.json").read_text())["script_sha256"] is None


@every
def test_only_the_program_exits(script):
    above, below = (ROOT / f"{script}.py").read_text().split('if __name__ == "__main__"')
    assert "sys.exit" not in above
    assert "sys.exit" in below
