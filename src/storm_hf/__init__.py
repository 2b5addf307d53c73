"""storm_hf: video-language models that think in latent video (arXiv 2605.26014).

Importing this package makes the Auto classes of transformers know STORM. The trainers, and what they are given, are loaded when
they are first used, since they need the extra `train`.
"""

import importlib
from typing import TYPE_CHECKING

from storm_hf.model import StormConfig, StormForConditionalGeneration, storm_processor


if TYPE_CHECKING:
    from storm_hf.align.config import StormAlignConfig
    from storm_hf.align.trainer import StormAlignTrainer
    from storm_hf.answer.config import StormAnswerConfig
    from storm_hf.answer.trainer import StormAnswerTrainer
    from storm_hf.curriculum.schedule import StormCurriculum
    from storm_hf.target_trajectory.trajectory import TargetTrajectory
    from storm_hf.training.adapter import peft_config
    from storm_hf.training.loading import StormModelConfig, load_rows, load_storm, pick_split
    from storm_hf.training.perception import caption_rows

_MODULE_OF = {
    "StormAlignConfig": "storm_hf.align.config",
    "StormAlignTrainer": "storm_hf.align.trainer",
    "StormAnswerConfig": "storm_hf.answer.config",
    "StormAnswerTrainer": "storm_hf.answer.trainer",
    "StormCurriculum": "storm_hf.curriculum.schedule",
    "StormModelConfig": "storm_hf.training.loading",
    "TargetTrajectory": "storm_hf.target_trajectory.trajectory",
    "caption_rows": "storm_hf.training.perception",
    "load_rows": "storm_hf.training.loading",
    "load_storm": "storm_hf.training.loading",
    "peft_config": "storm_hf.training.adapter",
    "pick_split": "storm_hf.training.loading",
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
    "StormModelConfig",
    "TargetTrajectory",
    "caption_rows",
    "load_rows",
    "load_storm",
    "peft_config",
    "pick_split",
    "storm_processor",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
