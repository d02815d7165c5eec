"""Times grpo.py beside TRL's GRPOTrainer: the same batch, and a GPT of the same size, on the CPU.

    python benchmark/peers/trl_grpo.py --dir runs/trl

Three contestants: grpo.py with its own GPT; grpo.py with examples/hugging_face.py, on a randomly initialised GPT-2 of
transformers with two layers of width 64; and TRL on the same GPT-2. Each samples 512 completions (64 prompts of the
addition, 8 of each, at most 5 tokens), scores them, and makes one update with a reference model: the loss is the
paper's, the KL weight 0.04. Nothing is learned that is worth a look, and time does not depend on it, except for
completions that end early: these GPTs, untrained, mostly run to the limit. The first iterations are left out.
DIR/speed.csv gets one row for each measurement: tokens per second of sampling, and of all else (rewards, reference,
loss, gradient, step).
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import tyro

ROOT = Path(__file__).resolve().parent.parent.parent
WARM_UP, PROMPTS, GENERATIONS, LENGTH, CONTEXT = 2, 64, 8, 5, 6


@dataclass
class Args:
    dir: Path = Path("runs/trl")  # where speed.csv goes; it must not exist
    iterations: int = 10  # measured iterations of each contestant, in each repeat
    repeats: int = 5  # the contestants take turns
    contestant: str | None = None  # of one measurement in a process of its own; used by the program itself


def make_model(folder: Path) -> None:
    """A GPT-2 of the size of grpo.py's GPT, and a tokenizer with a character a token, as transformers stores them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {character: i for i, character in enumerate("0123456789+=.")}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=".", pad_token=".", unk_token=".")
    fast.save_pretrained(folder)
    size = {"vocab_size": 13, "n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 256}
    drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "activation_function": "relu"}
    config = GPT2Config(**size, **drop, bos_token_id=12, eos_token_id=12, pad_token_id=12)
    GPT2LMHeadModel(config).save_pretrained(folder)


def prompts() -> list[str]:
    return [f"{a:02}+{b:02}=" for a in range(100) for b in range(100)]


def ours(args: Args, folder: Path, model: str | None) -> list[tuple[float, float]]:
    """Seconds of sampling and of the rest of each iteration of grpo.py."""
    sys.path.insert(0, str(ROOT))
    import grpo
    from examples.hugging_face import HuggingFace

    sampling, ends, sample = [], [], grpo.sample
    record = grpo.Run.record_iteration

    def reward(texts, answers, ended):
        return [answer == grpo.add(text) for text, answer in zip(texts, answers, strict=True)]

    def untrained():
        return HuggingFace(model) if model else grpo.GPT(), prompts(), reward

    def timed_sample(*arguments):
        start = time.perf_counter()
        completions = sample(*arguments)
        sampling.append(time.perf_counter() - start)
        return completions

    def timed_record(*arguments):
        ends.append(time.perf_counter())
        record(*arguments)
        ends.append(time.perf_counter())  # the log is not counted: TRL's is off

    grpo.sample, grpo.Run.record_iteration = timed_sample, timed_record
    grpo.addition = untrained
    batch = PROMPTS * GENERATIONS
    flags = {"total_timesteps": batch * (args.iterations + WARM_UP + 1), "batch_size": batch, "eval_episodes": 1}
    grpo.train(grpo.Args(num_generations=GENERATIONS, run_dir=folder / "run", **flags))
    whole = [end - start for start, end in zip(ends[1::2], ends[2::2], strict=False)]
    return [(s, w - s) for s, w in zip(sampling[1:], whole, strict=False)][WARM_UP : WARM_UP + args.iterations]


def theirs(args: Args, folder: Path, model: str) -> list[tuple[float, float]]:
    """The same of TRL's GRPOTrainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    sampling, ends = [], []

    class Timed(GRPOTrainer):
        def _generate(self, *arguments, **options):
            start = time.perf_counter()
            result = super()._generate(*arguments, **options)
            sampling.append(time.perf_counter() - start)
            return result

        def training_step(self, *arguments, **options):
            ends.append(time.perf_counter())
            return super().training_step(*arguments, **options)

    config = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to="none", logging_strategy="no",
        save_strategy="no", disable_tqdm=True, max_steps=args.iterations + WARM_UP + 1, num_generations=GENERATIONS,
        per_device_train_batch_size=PROMPTS * GENERATIONS, max_completion_length=LENGTH, learning_rate=1e-3, beta=0.04,
        loss_type="grpo", gradient_checkpointing=False, temperature=1.0, seed=1,
    )  # fmt: skip

    def reward(completions, **_):
        return [float(len(completion)) for completion in completions]

    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(model), reward_funcs=reward, args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts()}), processing_class=AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    trainer.train()
    whole = [end - start for start, end in pairwise(ends)]
    return [(s, w - s) for s, w in zip(sampling, whole, strict=False)][WARM_UP : WARM_UP + args.iterations]


def main() -> None:
    args = tyro.cli(Args)
    if args.contestant:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_model(folder / "gpt2")
            model = str(folder / "gpt2")
            contestants = {
                "grpo.py": lambda: ours(args, folder, None),
                "grpo.py, hugging_face.py": lambda: ours(args, folder, model),
                "TRL": lambda: theirs(args, folder, model),
            }
            seconds = contestants[args.contestant]()
        print(json.dumps([median(part) for part in zip(*seconds, strict=True)]))
        return
    if args.dir.exists():
        print(f"error: {args.dir} exists; name another --dir", file=sys.stderr)
        sys.exit(2)
    args.dir.mkdir(parents=True)
    tokens = PROMPTS * GENERATIONS * LENGTH
    with (args.dir / "speed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["repeat", "contestant", "quantity", "tokens_per_second"])
        for repeat in range(args.repeats):
            names = ["grpo.py", "grpo.py, hugging_face.py", "TRL"]
            for name in names[repeat % 3 :] + names[: repeat % 3]:
                words = [sys.executable, __file__, "--contestant", name, "--iterations", str(args.iterations)]
                result = subprocess.run(words, capture_output=True, text=True, check=False)
                if result.returncode:
                    sys.exit(result.stderr)
                sampling, rest = json.loads(result.stdout.splitlines()[-1])
                for quantity, seconds in (("sampling", sampling), ("update", rest), ("all", sampling + rest)):
                    writer.writerow([repeat + 1, name, quantity, round(tokens / seconds, 1)])
                print(f"{name}: sampling {sampling:.3f} s, the rest {rest:.3f} s", flush=True)
                file.flush()


if __name__ == "__main__":
    main()
