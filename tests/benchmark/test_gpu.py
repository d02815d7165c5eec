"""python -m benchmark gpu: what it measures, the table that is resumed from, and the report."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmark import __main__ as program
from benchmark import gpu


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Measure on the CPU with runs that take no time; return the exit status."""
    ran = []

    def pretend(case, repeat, *_):
        ran.append((case.script, case.setting, case.device, repeat))
        return {"steps_per_second": 100.0 * repeat}

    monkeypatch.setattr(gpu, "run_case", pretend)

    def one(only=("control",), repeats=3, minutes=9.0, devices=("cpu",)) -> int:
        ran.clear()
        return gpu.gpu(tmp_path / "out", list(devices), list(only), repeats, minutes, False)

    one.ran, one.out = ran, tmp_path / "out"
    return one


def rows_of(folder: Path) -> list[dict]:
    with (folder / "gpu.csv").open() as file:
        return list(csv.DictReader(file))


# ==============================================================================================
# What is measured
# ==============================================================================================
def test_the_plan():
    """Three sizes of three scripts, five scripts for language models with two models; on each
    device."""
    cases = gpu.make_cases(["cpu", "cuda"], gpu.PARTS, False)
    control = [case for case in cases if case.part == "control" and case.device == "cuda"]
    assert [case.flags["num_envs"] for case in control] == [8, 64, 512] * 3
    for case in control:
        batch = case.flags["num_envs"] * case.flags["num_steps"]
        assert case.flags["total_timesteps"] >= 8 * batch
        assert case.flags["total_timesteps"] % batch == 0
        assert batch % case.flags["num_minibatches"] == 0
    language = [case for case in cases if case.part == "language" and case.device == "cpu"]
    assert sum(not case.model for case in language) == 5
    assert {case.script for case in language if case.model} == set(gpu.LANGUAGE)
    gpt = gpu.fresh("grpo").GPT(**gpu.LARGE)
    assert 20e6 < sum(p.numel() for p in gpt.parameters()) < 30e6
    pairs = zip(cases[::2], cases[1::2], strict=True)
    assert all((a.device, b.device) == ("cpu", "cuda") and a.flags == b.flags for a, b in pairs)


def test_one_iteration_of_two_scripts_on_the_cpu(tmp_path, monkeypatch, capsys):
    """The real thing, short: from the command line to the report, and again for nothing."""
    monkeypatch.setattr(gpu, "FLAGS", {"ppo": gpu.FLAGS["ppo"]})
    monkeypatch.setattr(gpu, "LANGUAGE", ("ppo_rlhf",))
    out = tmp_path / "out"
    words = ["gpu", "--dir", str(out), "--device", "cpu", "--only", "control", "language"]
    words += ["--repeats", "1", "--short"]
    assert program.main(words) == 0, [path.read_text() for path in out.glob("runs/*/log.txt")]
    values = {
        (row["script"], row["setting"][:3], row["quantity"]): float(row["value"])
        for row in rows_of(out)
    }
    assert set(values) == {
        ("ppo", "Car", "steps_per_second"),
        ("ppo_rlhf", "def", "tokens_per_second"), ("ppo_rlhf", "25M", "tokens_per_second"),
        ("grpo", "25M", "tokens_per_second"),
    }  # fmt: skip
    assert all(value > 0 for value in values.values())
    assert "CartPole" not in capsys.readouterr().err
    assert {row["system"] for row in rows_of(out)} == {gpu.system() + "; short"}
    assert not [*out.glob("runs/*/run"), *out.glob("runs/*/base.pt")]
    assert "evaluation" in next(out.glob("runs/ppo*/log.txt")).read_text()
    before = (out / "gpu.csv").read_bytes()
    monkeypatch.setattr(gpu, "run_case", lambda *_: pytest.fail("it is measured already"))
    assert program.main(words) == 0
    assert (out / "gpu.csv").read_bytes() == before


def test_tokens_are_those_of_the_completions(tmp_path, monkeypatch):
    """Three completions of 2, 5 and 3 tokens in each of two batches, in four seconds."""

    class Run:
        def record_step(self, rewards, lengths):
            pass

    def train(args):
        for _ in range(2):
            Run().record_step(torch.zeros(3), torch.tensor([2, 5, 3]))
        return {"wall_seconds": 4.0}

    grpo = gpu.fresh("grpo")
    script = SimpleNamespace(GPT=grpo.GPT, Args=grpo.Args)
    script.Run, script.train = Run, train
    monkeypatch.setattr(gpu, "fresh", lambda name: script)
    flags = {"batch_size": 3, "no_such_flag": 1}
    case = gpu.Case("language", "grpo", "any", "cpu", flags, {"width": 32})
    assert gpu.measure_language(case, 1, tmp_path) == {"tokens_per_second": 5.0}
    base = torch.load(tmp_path / "base.pt", weights_only=True)["reference"]
    assert base["tokens.weight"].shape == (13, 32)


# ==============================================================================================
# The table
# ==============================================================================================
def test_repeats_are_the_outermost_loop_and_nothing_is_measured_twice(measure):
    assert measure(repeats=2) == 0
    assert [repeat for *_, repeat in measure.ran] == [1] * 9 + [2] * 9
    assert measure(repeats=3) == 0
    assert [repeat for *_, repeat in measure.ran] == [3] * 9
    assert len(rows_of(measure.out)) == 3 * 9


def test_no_measurement_begins_after_the_time(measure, capsys):
    assert measure(minutes=0.0) == 1
    assert measure.ran == []
    assert "27 not measured for want of time" in capsys.readouterr().out
    assert measure() == 0
    assert len(measure.ran) == 27


def test_a_failure_is_a_row_and_is_tried_again(tmp_path, monkeypatch, capsys):
    def broken(case, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "measure_control", broken)
    monkeypatch.setattr(gpu, "CONTROL", {8: 1})
    for _ in range(2):
        assert gpu.gpu(tmp_path / "out", ["cpu"], ["control"], 1, 9, False) == 1
    assert [row["quantity"] for row in rows_of(tmp_path / "out")] == ["failed"] * 3
    logs = [path.read_text() for path in tmp_path.glob("out/runs/*/log.txt")]
    assert logs == ["OutOfMemoryError: CUDA out of memory\n"] * 6  # none was overwritten
    assert "| failed |" in (tmp_path / "out" / "report.md").read_text()
    monkeypatch.setattr(gpu, "measure_control", lambda *_: {"steps_per_second": 1.0})
    assert gpu.gpu(tmp_path / "out", ["cpu"], ["control"], 1, 9, False) == 0
    assert "failed" not in {row["quantity"] for row in rows_of(tmp_path / "out")}


def test_what_cannot_be(measure, monkeypatch, capsys):
    def refused(*words: str) -> str:
        assert program.main(["gpu", "--dir", str(measure.out), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA card" in refused()
    assert "invalid choice: 'langage'" in refused("--device", "cpu", "--only", "langage")
    assert not measure.out.exists()
    measure.out.mkdir()
    (measure.out / "mine.txt").write_text("a user's")
    assert "is not empty" in refused("--device", "cpu")
    (measure.out / "gpu.csv").write_text("a,b\n1,2\n")
    assert "damaged" in refused("--device", "cpu")
    assert (measure.out / "gpu.csv").read_text() == "a,b\n1,2\n"
    (measure.out / "gpu.csv").unlink()
    (measure.out / "mine.txt").unlink()
    measure()
    monkeypatch.setattr(gpu, "system", lambda: "another machine")
    assert "another machine" in refused("--device", "cpu")


def test_the_report_has_medians_and_the_ratio_to_the_cpu():
    table = []
    for script, device, quantity, values in (
        ("ppo", "cpu", "steps_per_second", [1000, 2000, 9000]),
        ("ppo", "cuda", "steps_per_second", [1, 500, 501]),
        ("grpo", "cuda", "tokens_per_second", [7.0]),
        ("grpo", "cuda", "peak_memory", [1234.4]),
    ):
        row = {"script": script, "setting": "s", "device": device, "quantity": quantity}
        table += [row | {"value": str(value), "system": "m"} for value in values]
    lines = gpu.report(table).splitlines()
    assert "| ppo | s | cpu | 3 | 2,000 steps/s |  |  |" in lines
    assert "| ppo | s | cuda | 3 | 500 steps/s |  | 0.25 |" in lines
    assert "| grpo | s | cuda | 1 | 7 tokens/s | 1,234 MiB |  |" in lines
