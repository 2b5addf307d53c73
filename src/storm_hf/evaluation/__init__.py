"""Questions in, answers and accuracies out. Nothing in this folder knows what a thought video is."""

from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.evaluation.batch import Answer, answer_questions, read_outcome
from storm_hf.evaluation.latent_words import read_latent_words
from storm_hf.evaluation.single import ClipQuestion, ask, ask_with_replaced_latents, read_clip


__all__ = [
    "Answer",
    "ClipQuestion",
    "answer_questions",
    "ask",
    "ask_with_replaced_latents",
    "load_checkpoint",
    "read_clip",
    "read_latent_words",
    "read_outcome",
]
