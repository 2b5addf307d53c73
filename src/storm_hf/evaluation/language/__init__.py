"""Plain language of a model: what remains of it after training on clips.

    texts         prompts and prose written for this package
    plain         perplexity of plain text, and answers to prompts without a clip
    agreement     the rule by which an answer counts as given before
    report        measures of one model, and of a model before and after training

Everything is asked with `num_latents=0`: no latent block and no clip, the backbone itself.
"""

from storm_hf.evaluation.language.agreement import same_answer
from storm_hf.evaluation.language.plain import answer_plainly, perplexity
from storm_hf.evaluation.language.report import AnswerPair, LanguageMeasure, LanguageReport, measure_language
from storm_hf.evaluation.language.texts import (
    read_held_out_prompts,
    read_held_out_texts,
    read_training_prompts,
    read_training_texts,
)


__all__ = [
    "AnswerPair",
    "LanguageMeasure",
    "LanguageReport",
    "answer_plainly",
    "measure_language",
    "perplexity",
    "read_held_out_prompts",
    "read_held_out_texts",
    "read_training_prompts",
    "read_training_texts",
    "same_answer",
]
