"""storm_hf: video-language models that think in latent video (arXiv 2605.26014).

Importing this package registers STORM with the Auto classes of transformers. The trainers and their inputs are loaded on first
use, since they need the extra `train`. In a process of the `storm` command everything is: `storm --help` needs no torch.
"""

import sys
from typing import TYPE_CHECKING

from storm_hf.model import register
from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.align.config import StormAlignConfig
    from storm_hf.align.trainer import StormAlignTrainer
    from storm_hf.answer.config import StormAnswerConfig
    from storm_hf.answer.trainer import StormAnswerTrainer
    from storm_hf.curriculum.schedule import StormCurriculum
    from storm_hf.evaluation.session import StormSession
    from storm_hf.model import StormConfig, StormForConditionalGeneration, storm_processor
    from storm_hf.reinforce.config import StormGRPOConfig
    from storm_hf.reinforce.trainer import StormGRPOTrainer
    from storm_hf.target_trajectory.trajectory import TargetTrajectory
    from storm_hf.training.language import answers_before, record_language
    from storm_hf.training.loading import StormModelConfig, caption_rows, load_rows, load_storm, pick_split
    from storm_hf.training.peft import peft_config

_MODULE_OF = {
    "StormAlignConfig": "storm_hf.align.config",
    "StormAlignTrainer": "storm_hf.align.trainer",
    "StormAnswerConfig": "storm_hf.answer.config",
    "StormAnswerTrainer": "storm_hf.answer.trainer",
    "StormConfig": "storm_hf.model",
    "StormCurriculum": "storm_hf.curriculum.schedule",
    "StormForConditionalGeneration": "storm_hf.model",
    "StormGRPOConfig": "storm_hf.reinforce.config",
    "StormGRPOTrainer": "storm_hf.reinforce.trainer",
    "StormModelConfig": "storm_hf.training.loading",
    "StormSession": "storm_hf.evaluation.session",
    "TargetTrajectory": "storm_hf.target_trajectory.trajectory",
    "answers_before": "storm_hf.training.language",
    "caption_rows": "storm_hf.training.loading",
    "load_rows": "storm_hf.training.loading",
    "load_storm": "storm_hf.training.loading",
    "peft_config": "storm_hf.training.peft",
    "pick_split": "storm_hf.training.loading",
    "record_language": "storm_hf.training.language",
    "storm_processor": "storm_hf.model",
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
    "StormGRPOConfig",
    "StormGRPOTrainer",
    "StormModelConfig",
    "StormSession",
    "TargetTrajectory",
    "answers_before",
    "caption_rows",
    "load_rows",
    "load_storm",
    "peft_config",
    "pick_split",
    "record_language",
    "storm_processor",
]


__getattr__ = first_use(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "storm_command" not in sys.modules:
    register()
