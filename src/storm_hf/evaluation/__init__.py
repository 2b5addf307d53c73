"""Questions in, answers and accuracies out. Nothing in this folder knows what a thought video is."""

from storm_hf.evaluation.answering import Answer, answer_questions


__all__ = ["Answer", "answer_questions"]
