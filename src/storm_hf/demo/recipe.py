"""Recipes of the demo, one per world: numbers of clips and steps, learning rates."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from storm_hf.errors import WorldError
from storm_hf.target_trajectory.pool import Layout


@dataclass(frozen=True)
class Training:
    """One training run of the demo.

    Args:
        num_updates (`int`):
            Optimizer updates.
        learning_rate (`float`):
            Its peak; it rises over the first updates and falls along a cosine.
    """

    num_updates: int
    learning_rate: float


@dataclass(frozen=True)
class DemoRecipe:
    """Everything that determines a run of the demo, besides the code.

    Args:
        world (`str`):
            Name of the world.
        task (`str`):
            Description of the clips and of the question.
        depth_unit (`str`):
            Unit of depth, in the plural.
        knobs (`Mapping[str, int]`):
            Of the world.
        test_depths (`Mapping[int, int]`):
            Test clips of each depth.
        deep (`tuple[int, ...]`):
            Depths of the clips that variants and interventions are tested on.
        seed (`int`):
            Of data, weights and order.
        naive_targets (`bool`):
            Whether the targets are pooled features of unit size that were not whitened.
        frame_pixels (`int`):
            Pixels that the video processor leaves of a frame.
        whitening_rank (`int`, *optional*):
            Principal components of the targets. Left out, a probe of the states chooses the fewest that hold them.
        target_layout (`str`):
            Spatial layout of the target of a thought frame: the `"average"` over space, or all cells, `"concat"`.
        teacher_noise (`float`):
            Noise on the targets that Stage I feeds; see [`StormAlignConfig`].
        bottleneck_share (`float`):
            Rows whose answer learns of the clip through the latents alone; see [`StormTrainingConfig`].
        trainings (`Mapping[str, Training]`):
            `base`, `align`, `answer`, `direct`, `chain_of_thought`, `terse_chain`.
        latent_scale (`float`):
            Factor between a latent and what is fed; see [`StormConfig`].
        rope_theta (`float`):
            Base of the backbone's rotary frequencies; see [`~storm_hf.demo.backbone.tiny_config`].
        num_train (`int`):
            Clips trained on.
        num_gallery (`int`):
            Thought frames of validation clips that latents are compared with.
        num_per_depth (`int`):
            Test clips of each depth in the accuracy by depth.
        batch_size (`int`):
            Clips of an update.
        num_latents (`int`):
            Number K of latent steps, one for each step of the world.
        canvas (`tuple[int, int]`, *optional*):
            Height and width that frames are padded to; see [`WorldRecipe`].
        open_share (`float`):
            Share of the training questions that are asked without their options; see [`WorldSplit`].
    """

    world: str
    task: str
    depth_unit: str
    knobs: Mapping[str, int]
    test_depths: Mapping[int, int]
    deep: tuple[int, ...]
    seed: int
    naive_targets: bool
    frame_pixels: int
    whitening_rank: int | None
    target_layout: Layout
    teacher_noise: float
    trainings: Mapping[str, Training]
    bottleneck_share: float = 0.0
    latent_scale: float = 1.0
    rope_theta: float = 1e4
    num_train: int = 3000
    num_gallery: int = 256
    num_per_depth: int = 64
    batch_size: int = 48
    num_latents: int = 6
    canvas: tuple[int, int] | None = None
    open_share: float = 0.0

    @property
    def deep_clips(self) -> str:
        """Name the clips that variants and interventions are tested on, such as `"clips with 5 or 6 swaps"`."""
        return f"clips with {' or '.join(map(str, self.deep))} {self.depth_unit}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, to be kept beside the run."""
        return asdict(self)


@dataclass(frozen=True)
class _World:
    task: str
    depth_unit: str
    knobs: Mapping[str, int]
    test_depths: Mapping[int, int]
    deep: tuple[int, ...]
    frame_pixels: int
    whitening_rank: int | None
    updates: Mapping[str, int]
    rates: Mapping[str, float] = field(default_factory=dict)
    target_layout: Layout = "average"
    teacher_noise: float = 0.0
    bottleneck_share: float = 0.0
    latent_scale: float = 1.0
    rope_theta: float = 1e4
    num_train: int = 3000


_OPEN_SHARE = 0.5  # trained on questions with options only, a model guesses when it is asked without them
_RATES = {
    "base": 2e-3,
    "align": 1e-3,
    "answer": 1e-4,  # a tenth of Stage I's
    "direct": 1e-3,
    "chain_of_thought": 1e-3,
    "terse_chain": 1e-3,
}
_WORLDS = {
    "shuffle": _World(
        task="A ball is put under one of four cups, then cups swap places in some of six steps. Which cup holds the ball "
        "at the end?",
        depth_unit="swaps",
        knobs={"num_steps": 6, "min_swaps": 0, "max_swaps": 6},
        test_depths={0: 64, 1: 64, 2: 64, 3: 64, 4: 64, 5: 256, 6: 256},
        deep=(5, 6),
        frame_pixels=16 * 64,
        whitening_rank=16,
        updates={
            "base": 220,
            "align": 300,
            "answer": 100,
            "direct": 600,
            "chain_of_thought": 400,
            "terse_chain": 400,
        },
    ),
    "bounce": _World(
        task="A ball rolls over a board with walls and three deflectors. The clip shows where it starts and where it "
        "heads. Where is it after some steps?",
        depth_unit="steps",
        knobs={"num_steps": 6, "min_steps": 4, "max_steps": 6},
        test_depths={4: 128, 5: 256, 6: 256},
        deep=(5, 6),
        frame_pixels=48 * 48,
        whitening_rank=64,
        teacher_noise=0.3,  # the rollout errs more here than on `shuffle`, and Stage I has to bear it
        target_layout="concat",  # where the deflectors lie is part of the picture: a probe reads the state at rank 64
        updates={
            "base": 400,  # after 260 it still misreads one token in forty, and the targets with it
            "align": 800,
            "answer": 400,
            "direct": 1200,
            "chain_of_thought": 1200,
            "terse_chain": 1200,
        },
    ),
    "order": _World(
        task="Five shapes appear one after the other. Which one came third? This task needs no state that changes step by "
        "step, so a direct answer can do it: a control.",
        depth_unit="places",
        knobs={"num_steps": 6},
        test_depths={1: 64, 2: 64, 3: 64, 4: 256, 5: 256},
        deep=(4, 5),
        frame_pixels=16 * 64,
        whitening_rank=32,
        bottleneck_share=0.5,  # the clip answers directly: without it, one run of three used its latents
        updates={
            "base": 220,
            "align": 600,
            "answer": 100,
            "direct": 700,
            "chain_of_thought": 700,
            "terse_chain": 700,
        },
    ),
    "lattice": _World(
        task="A pattern of 48 tiles is shown, then signs for operations that shift or mix all of them. What do three tiles of a "
        "row show at the end?",
        depth_unit="operations",
        knobs={"num_steps": 6, "min_operations": 0, "max_operations": 6},
        test_depths={0: 64, 1: 64, 2: 64, 3: 64, 4: 64, 5: 256, 6: 256},
        deep=(5, 6),
        frame_pixels=16 * 48,
        whitening_rank=None,  # a probe reads all 48 tiles from 48 components of one base and from 52 of another
        target_layout="concat",  # averaged over space, tiles are lost
        bottleneck_share=0.5,  # without it the answer learned the clips by heart: right on those trained on, chance on others
        teacher_noise=0.3,  # an operation that mixes tiles spreads the errors of the step before
        latent_scale=0.25,  # with scale 1 and half the rate, a smaller lattice was not learned
        rope_theta=4.0,  # the first latent has to distinguish the cells of the pattern
        num_train=12000,
        updates={
            "base": 2000,  # after 700 it misread one token in fifteen, and targets lost tiles with it
            "align": 4000,  # tiles that mix are learned one after the other
            "answer": 400,
            "direct": 4400,
            "chain_of_thought": 4400,
            "terse_chain": 4400,
        },
        rates={
            "align": 2e-3,
            "answer": 3e-5,  # at 1e-4 the rollout that Stage I built loses tiles that no answer asks for
        },
    ),
}


def demo_recipe(world: str = "shuffle", seed: int = 0, naive_targets: bool = False) -> DemoRecipe:
    """Look up what the demo does for a world.

    Args:
        world (`str`, *optional*, defaults to `"shuffle"`):
            `"shuffle"`, `"bounce"`, `"order"` or `"lattice"`.
        seed (`int`, *optional*, defaults to `0`):
            Of data, weights and order.
        naive_targets (`bool`, *optional*, defaults to `False`):
            Whether to leave the targets as pooled, at unit size and not whitened, to see the failure.

    Raises:
        WorldError: If the demo does not know the world.
    """
    if world not in _WORLDS:
        raise WorldError(f"The demo knows the worlds {', '.join(_WORLDS)} but got {world!r}.")
    known = _WORLDS[world]
    rates = {**_RATES, **known.rates}
    return DemoRecipe(
        world=world,
        task=known.task,
        depth_unit=known.depth_unit,
        knobs=known.knobs,
        test_depths=known.test_depths,
        deep=known.deep,
        seed=seed,
        naive_targets=naive_targets,
        frame_pixels=known.frame_pixels,
        whitening_rank=known.whitening_rank,
        target_layout="average" if naive_targets else known.target_layout,
        teacher_noise=known.teacher_noise,
        bottleneck_share=known.bottleneck_share,
        latent_scale=known.latent_scale,
        rope_theta=known.rope_theta,
        num_train=known.num_train,
        trainings={name: Training(updates, rates[name]) for name, updates in known.updates.items()},
        open_share=_OPEN_SHARE,
    )
