"""A task for language models: go on with the opening of a review, and be paid for cheerful
words, by the compound score of VADER's lexicon, -1 to 1.

    python rloo.py --task examples.reviews:cheerful --task-kwargs '{"path": "PATH"}'
"""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from examples.hugging_face import HuggingFace

SUBJECTS = ["film", "play", "book", "album", "concert", "ballet", "game", "museum", "hotel"]
OPENINGS = [
    "After the {}, I felt",
    "My opinion of the {}:",
    "The {} was",
    "The end of the {} was",
]
OPENINGS += ["To my sister, the {} seemed", "I would call this {}", "For its price, the {} was"]
OPENINGS += ["What I remember of the {} is", "Half way through the {}, it became"]


def cheerful(path: str, lora_rank: int = 16, dtype: str = "float32"):
    """The model at `path`, openings of reviews, and the reward."""
    prompts = [opening.format(subject) for opening in OPENINGS for subject in SUBJECTS]
    analyzer = SentimentIntensityAnalyzer()

    def reward(prompts: list[str], completions: list[str], ended: list[bool]) -> list[float]:
        return [analyzer.polarity_scores(text)["compound"] for text in completions]

    return HuggingFace(path, lora_rank, dtype), prompts, reward
