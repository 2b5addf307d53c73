"""Configuration of Stage II."""

from dataclasses import dataclass

from storm_hf.settings import with_help
from storm_hf.training.config import StormTrainingConfig


@with_help
@dataclass
class StormAnswerConfig(StormTrainingConfig):
    r"""
    Configuration class for the [`StormAnswerTrainer`]. It adds to what both stages share:

    Parameters:
        learning_rate (`float`, *optional*, defaults to `1e-6`):
            A tenth of Stage I's. At Stage I's rate the rollout that Stage I built can be destroyed before it is repaired.
    """

    learning_rate: float = 1e-6
