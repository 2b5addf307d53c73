"""Settings of the demo that differ from world to world."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Training:
    """One training run of the demo.

    Args:
        num_updates (`int`):
            Optimizer updates.
        learning_rate (`float`, *optional*, defaults to `1e-3`):
            Its peak; it rises over the first updates and falls along a cosine.
    """

    num_updates: int
    learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Clips, targets and trainings of a world in `storm demo`.

    Args:
        task (`str`):
            Description of the clips and of the question.
        depth_unit (`str`):
            Unit of depth, in the plural.
        knobs (`Mapping[str, int]`):
            Knobs of the world. Its steps are as many as the model has latents.
        test_depths (`Mapping[int, int]`):
            Test clips of each depth.
        deep (`tuple[int, ...]`):
            Depths of the clips that variants and interventions are tested on.
        whitening_rank (`int`, *optional*):
            Principal components of the targets. `None` lets a probe of the states choose the fewest that hold them.
        trainings (`Mapping[str, Training]`):
            `base`, `align`, `answer`, `direct`, `chain_of_thought` and `terse_chain`.
        target_layout (`str`, *optional*, defaults to `"average"`):
            Spatial layout of the target of a thought frame: the average over space, or all cells, `"concat"`.
        teacher_noise (`float`, *optional*, defaults to `0.0`):
            Noise on the targets that Stage I feeds; see [`StormAlignConfig`].
        bottleneck_share (`float`, *optional*, defaults to `0.0`):
            Share of rows whose answer learns of the clip through the latents alone; see [`StormTrainingConfig`].
        latent_scale (`float`, *optional*, defaults to `1.0`):
            Factor between a latent and what is fed; see [`StormConfig`].
        rope_theta (`float`, *optional*, defaults to `1e4`):
            Base of the backbone's rotary frequencies; see [`~storm_hf.demo.backbone.tiny_config`].
        num_train (`int`, *optional*, defaults to `3000`):
            Clips trained on.
    """

    task: str
    depth_unit: str
    knobs: Mapping[str, int]
    test_depths: Mapping[int, int]
    deep: tuple[int, ...]
    whitening_rank: int | None
    trainings: Mapping[str, Training]
    target_layout: Literal["average", "concat"] = "average"
    teacher_noise: float = 0.0
    bottleneck_share: float = 0.0
    latent_scale: float = 1.0
    rope_theta: float = 1e4
    num_train: int = 3000
