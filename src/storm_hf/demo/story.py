"""Contents of the demo's page beyond its numbers: example clips, nearest thoughts of each latent, training settings.

Axes: H height, W width, in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from storm_hf.demo.record import ArmResult


@dataclass(frozen=True)
class ArmTraining:
    """Training of one arm: its total steps, and the parameters they change."""

    num_updates: int
    num_parameters: int


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A thought frame that a latent resembles, found among those of other clips.

    Args:
        frame (`np.ndarray` of shape `(height, width, 3)`):
            RGB pixels, `uint8`.
        state (`str`):
            State that the frame shows, in a word.
        similarity (`float`):
            Cosine between the latent and the target of that frame.
    """

    frame: np.ndarray
    state: str
    similarity: float


@dataclass(frozen=True, eq=False)
class ImaginedStep:
    """One latent, read by what it resembles most.

    Args:
        neighbours (`tuple[Neighbour, ...]`):
            The nearest frames of the gallery, the nearest first.
        share (`float`):
            Share of the similarity (softmax of the cosines over the gallery) that falls on frames with the state of
            the nearest, 0 to 1.
        true_frame (`np.ndarray` of shape `(height, width, 3)`):
            Frame of this clip's own thought video at this step, which the model never sees.
        true_state (`str`):
            State that the frame shows, in a word.
    """

    neighbours: tuple[Neighbour, ...]
    share: float
    true_frame: np.ndarray
    true_state: str

    @property
    def is_right(self) -> bool:
        """True if the nearest frame shows the true state."""
        return self.neighbours[0].state == self.true_state


@dataclass(frozen=True, eq=False)
class ExampleClip:
    """One test clip with its question, shown on the page.

    Args:
        clip (`Path`):
            mp4 file that the model saw.
        thought (`Path`):
            mp4 file that the simulator made of the reasoning.
        question (`str`):
            The question.
        options (`tuple[str, ...]`):
            The closed set of answers.
        answer (`str`):
            The correct one.
        given (`Mapping[str, str]`):
            From the name of an arm (`storm`, `direct`) to what it answered.
        steps (`tuple[ImaginedStep, ...]`):
            One for each latent.
    """

    clip: Path
    thought: Path
    question: str
    options: tuple[str, ...]
    answer: str
    given: Mapping[str, str]
    steps: tuple[ImaginedStep, ...]


@dataclass(frozen=True)
class TargetCosines:
    """Similarity of the targets of different thoughts, as the alignment loss sees them.

    Args:
        raw (`float`):
            Mean cosine between the raw pooled features of two random thought videos at the same step.
        used (`float`):
            The same of the targets that this run trained on.
        reached (`float`):
            Mean cosine between the model's latents and their own targets on held-out clips.
    """

    raw: float
    used: float
    reached: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoStory:
    """Contents of the page that are not in `report.json`.

    Args:
        task (`str`):
            Description of the clips and of the question, in a sentence or two.
        deep_clips (`str`):
            The clips that arms and interventions are tested on, such as `"clips with 5 or 6 swaps"`.
        depth_unit (`str`):
            Unit of depth, in the plural, such as `"swaps"`.
        num_train (`int`):
            Clips trained on.
        num_per_depth (`int`):
            Test clips at each depth.
        training (`Mapping[str, ArmTraining]`):
            From the name of each arm to how it was trained.
        examples (`tuple[ExampleClip, ...]`):
            At least one; the first introduces the task.
        cosines (`TargetCosines`):
            Similarity of the targets.
        machine (`str`):
            Machine of the run, such as `"2 CPU cores"`.
        backbone (`str`):
            Trained model, such as `"a randomly initialised Qwen2.5-VL"`.
        command (`str`):
            The command that makes this page again.
        versions (`Mapping[str, str]`):
            From package to version.
        naive_targets (`bool`, *optional*, defaults to `False`):
            Whether the targets were pooled features of unit size that were not whitened.
        frames_per_step (`int`, *optional*, defaults to `2`):
            Frames of a clip that make up one step. The stills show the last of each.
        extra_arms (`Mapping[str, ArmResult]`, *optional*):
            Arms beside those of the report, such as `terse_chain`.
        extra_by_depth (`Mapping[str, Mapping[str, float]]`, *optional*):
            From an arm that the report does not list by depth to its accuracy at each depth, such as
            `{"chain_of_thought": {"0": 1.0}}`.
    """

    task: str
    deep_clips: str
    depth_unit: str
    num_train: int
    num_per_depth: int
    training: Mapping[str, ArmTraining]
    examples: tuple[ExampleClip, ...]
    cosines: TargetCosines
    machine: str
    backbone: str
    command: str
    versions: Mapping[str, str]
    naive_targets: bool = False
    frames_per_step: int = 2
    extra_arms: Mapping[str, ArmResult] = field(default_factory=dict)
    extra_by_depth: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
