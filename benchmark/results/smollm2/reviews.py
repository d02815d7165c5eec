"""A task for --model: continue a review, and be paid for cheerful words (VADER's lexicon)."""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

SUBJECTS = [
    "film", "play", "book", "album", "concert", "ballet", "game", "museum", "restaurant",
    "hotel",
]  # fmt: skip
OPENINGS = [
    "After the {}, I felt", "My opinion of the {}:", "The {} was",
    "To my sister, the {} seemed",
    "I would call this {}", "The end of the {} was", "What I remember of the {} is",
    "People told me the {} is", "For its price, the {} was",
    "Half way through the {}, it became",
]  # fmt: skip


def positive():
    """Prompts, and the reward of a completion: VADER's compound score, -1 to 1."""
    prompts = [opening.format(subject) for opening in OPENINGS for subject in SUBJECTS]
    analyzer = SentimentIntensityAnalyzer()
    return prompts, lambda prompt, completion: analyzer.polarity_scores(completion)["compound"]
