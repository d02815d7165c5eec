"""The scripts on a CUDA card; without one these tests skip. DEVICE and CARD are the only words
on it: with "cpu" and True the same tests run anywhere, but for the last. a3c.py takes no
card, as its workers share the CPU's memory."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import helpers
import lm_helpers
import pytest
import torch
from helpers import LM_SCRIPTS, ROOT, SCRIPTS, benchmark_env, checkpoint_of, environment, module
from test_resume import same

DEVICE = "cuda"
CARD = torch.cuda.is_available()
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not CARD, reason="there is no CUDA card"),
    pytest.mark.parametrize(
        "script", [name for name in [*SCRIPTS, *LM_SCRIPTS] if name != "a3c"]
    ),
    pytest.mark.usefixtures("answers_that_earn"),
]
# Sets a limit that the first tensor on the card exceeds, then runs a script as a program.
STARVED = """
import runpy, sys, torch
torch.cuda.set_per_process_memory_fraction(0.0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def answers_that_earn(script, monkeypatch) -> None:
    """The untrained base model's answers are all wrong, and nothing would be learned."""
    if script in LM_SCRIPTS:
        lm_helpers.with_reward(
            module(script),
            monkeypatch,
            lambda prompt, answer: len(answer) % 2 + ("1" in answer),
        )


def flags_of(script: str, folder: Path, **flags) -> dict:
    """Flags of a small run in `folder`: two iterations or more."""
    folder.mkdir(exist_ok=True)
    if script in LM_SCRIPTS:
        return lm_helpers.flags_of(script, folder, **flags)
    flags = {"env_id": benchmark_env(script), "total_timesteps": 64} | flags
    return helpers.small(script) | {"run_dir": folder / "run"} | flags


def train(script: str, folder: Path, **flags) -> dict:
    found = module(script)
    return found.train(found.Args(**flags_of(script, folder, **flags)))


def resume(script: str, run_dir: Path, **flags) -> dict:
    """As the command line does it, where a flag that is given wins even at its default."""
    found = module(script)
    return found.train(replace(found.check_args(found.Args(resume=run_dir)), **flags))


def network(script: str, run_dir: Path) -> dict:
    """The policy's weights in the checkpoint, where they were saved from."""
    return checkpoint_of(run_dir)["policy" if script in LM_SCRIPTS else "actor"]


def noise_of_the_cpu(monkeypatch) -> None:
    """Draw every random number on the CPU: from one seed, one noise on all devices."""
    exponential, multinomial = torch.Tensor.exponential_, torch.Tensor.multinomial
    rand, randn, randperm = torch.rand, torch.randn, torch.randperm
    replacements = {
        (torch.Tensor, "exponential_"): lambda x: x.copy_(exponential(torch.empty(x.shape))),
        (torch.Tensor, "multinomial"): lambda x, n: multinomial(x.cpu(), n).to(x.device),
        (torch, "rand_like"): lambda x: rand(x.shape).to(x.device),
        (torch, "randn_like"): lambda x: randn(x.shape).to(x.device),
        (torch, "randperm"): lambda n, device="cpu": randperm(n).to(device),
    }
    for (owner, name), replacement in replacements.items():
        monkeypatch.setattr(owner, name, replacement)


def first_losses(script: str, folder: Path, device: str, monkeypatch) -> dict[str, float]:
    """What the first iteration that learns has to log."""
    seen, found = [], module(script)
    record = found.Run.record_iteration

    def note(run, *args):
        seen.append({name: float(value) for name, value in args[-1].items()})
        record(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(found.Run, "record_iteration", note)
        train(script, folder, device=device)
    return next(filter(None, seen))


def test_a_run_goes_from_the_card_to_the_cpu_and_back(script, tmp_path):
    """Trained, saved, restored to the bit, trained on and evaluated on either."""
    run_dir, steps, lm = tmp_path / "run", 64, script in LM_SCRIPTS
    summary = train(script, tmp_path, device=DEVICE, total_timesteps=steps)
    for device, was in ((DEVICE, DEVICE), ("cpu", DEVICE), (DEVICE, "cpu")):
        before = network(script, run_dir)
        assert {tensor.device.type for tensor in before.values()} == {was}
        again = resume(script, run_dir, device=device)  # nothing left to train
        assert again["global_step"] == summary["global_step"]
        after = network(script, run_dir)
        assert {tensor.device.type for tensor in after.values()} == {device}
        same({k: v.cpu() for k, v in after.items()}, {k: v.cpu() for k, v in before.items()})
        steps += 64
        summary = resume(script, run_dir, device=device, total_timesteps=steps)
        assert summary["global_step"] > again["global_step"]
        assert summary["eval_episodes"] == (8 if lm else 2)
        assert all(math.isfinite(x) for x in summary.values() if isinstance(x, float))
        trained = network(script, run_dir)
        assert any(not torch.equal(trained[key], after[key]) for key in trained)


def test_losses_are_those_of_the_cpu(script, tmp_path, monkeypatch):
    """The first iteration from the same weights with the same noise: the same batch."""
    noise_of_the_cpu(monkeypatch)
    cpu, card = (
        first_losses(script, tmp_path / name, device, monkeypatch)
        for name, device in (("cpu", "cpu"), ("card", DEVICE))
    )
    for losses in (cpu, card):  # of ties: the policy is still its base model
        losses.pop("reward_accuracy", None)
    assert card == pytest.approx(cpu, rel=1e-5, abs=1e-5)
    assert any(abs(cpu[name]) > 1e-3 for name in cpu if name.endswith(("loss", "grad_norm")))


def test_the_same_seed_has_the_same_bits(script, tmp_path):
    for name in ("first", "second"):
        train(script, tmp_path / name, device=DEVICE, total_timesteps=96)
    first, second = (checkpoint_of(tmp_path / name / "run") for name in ("first", "second"))
    for key in set(first) - {"about", "args", "counters"}:
        same(first[key], second[key])


def test_too_little_memory_is_one_line(script, tmp_path):
    flags = flags_of(script, tmp_path, device=DEVICE)
    words = [word for name, x in flags.items() for word in (f"--{name.replace('_', '-')}", x)]
    words = [sys.executable, "-c", STARVED, ROOT / f"{script}.py", *words]
    result = subprocess.run(
        [*map(str, words)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: CUDA out of memory")
