"""Questions in, answers and accuracies out. Nothing in this folder knows what a thought video is."""

from storm_hf.evaluation.answering import Answer, answer_questions
from storm_hf.evaluation.asking import ClipQuestion, ask, ask_with_replaced_latents, read_clip
from storm_hf.evaluation.loading import load_checkpoint


__all__ = [
    "Answer",
    "ClipQuestion",
    "answer_questions",
    "ask",
    "ask_with_replaced_latents",
    "load_checkpoint",
    "read_clip",
]
