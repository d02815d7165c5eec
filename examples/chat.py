"""A task for instruct models: answer questions whose right answers are known.

    python grpo.py --task examples.chat:questions \\
        --task-kwargs '{"path": "PATH", "file": "questions.jsonl"}' --max-completion-length 64

Each line of the file is a JSON object such as {"question": "2 + 2 = ?", "answer": "4"}. A
question is asked in the words of the model's chat template. A completion earns 1 if it comes to
its end and the answer is its last word, without a full stop, and else 0.
"""

import json
from pathlib import Path

from examples.hugging_face import HuggingFace


def last_word(text: str) -> str:
    return (text.split() or [""])[-1].strip(".")


def questions(path: str, file: str, lora_rank: int = 16, system: str = "Answer in one word."):
    """The model at `path`, the questions of `file` as prompts, and the reward."""
    policy = HuggingFace(path, lora_rank)
    answers = {}
    for row in map(json.loads, Path(file).read_text(encoding="utf-8").splitlines()):
        messages = [{"role": "user", "content": f"{system} {row['question']}"}]
        options = {"tokenize": False, "add_generation_prompt": True}
        prompt = policy.tokenizer.apply_chat_template(messages, **options)
        answers[prompt] = row["answer"]

    def reward(prompts: list[str], completions: list[str], ended: list[bool]) -> list[float]:
        rows = zip(prompts, completions, ended, strict=True)
        return [float(end and last_word(text) == answers[prompt]) for prompt, text, end in rows]

    return policy, list(answers), reward
