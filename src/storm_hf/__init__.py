"""storm_hf: video-language models that think in latent video (arXiv 2605.26014).

Importing this package makes the Auto classes of transformers know STORM. The trainers are loaded when they are first used,
since they need the extra `train`.
"""

import importlib

from storm_hf.model import StormConfig, StormForConditionalGeneration, storm_processor


_MODULE_OF = {
    "StormAlignConfig": "storm_hf.align.config",
    "StormAlignTrainer": "storm_hf.align.trainer",
    "StormAnswerConfig": "storm_hf.answer.config",
    "StormAnswerTrainer": "storm_hf.answer.trainer",
    "StormCurriculum": "storm_hf.curriculum.schedule",
}

__version__ = "0.1.0"
__all__ = [
    "StormAlignConfig",
    "StormAlignTrainer",
    "StormAnswerConfig",
    "StormAnswerTrainer",
    "StormConfig",
    "StormCurriculum",
    "StormForConditionalGeneration",
    "storm_processor",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
