"""Everything that determines a data set of thoughts: one YAML file.

output_dir: data/thoughts
sources: {train: [{path: train.jsonl, video_root: clips}]}     or  world: {world: shuffle, splits: {train: {count: 512}}}
                                                               or  films: {splits: {train: {folder: films, count: 512}}}
prompts: {template: {template: "..."}}
generator: {future: {horizon_seconds: 4}}
gates: {static: {}, scene_break: {}, duplicate: {}}
reading: {timeout_seconds: 120, limits: {max_frame_pixels: 8847360}}
encoder: {model: Qwen/Qwen2.5-VL-3B-Instruct, dtype: bfloat16}
targets: {num_latents: 8, rank: auto}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from storm_hf.annotations import SourceConfig
from storm_hf.errors import ConfigurationError
from storm_hf.settings import PositiveFloat, PositiveInt, check_values, make_settings, read_yaml
from storm_hf.target_trajectory import TargetSettings
from storm_hf.thought_video import FilmRecipe, WorldRecipe
from storm_hf.video import VideoLimits
from storm_hf.video.library_backends import check_backend_name


Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A frozen model, and how each process holds it.

    Args:
        model (`str`):
            A checkpoint: a folder, or a name on the Hub.
        revision (`str`, *optional*):
            Version of it on the Hub.
        dtype (`str`, *optional*, defaults to `"float32"`):
            `float32`, `bfloat16` or `float16`.
        device (`str`, *optional*):
            Such as `"cuda"`. By default where there is one, else `"cpu"`.
        threads (`int`, *optional*, defaults to `1`):
            Of each process on the CPU. With one, bytes do not depend on the machine, and workers use the other cores.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    model: str
    revision: str | None = None
    dtype: Dtype = "float32"
    device: str | None = None
    threads: PositiveInt = 1

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(ModelSettings):
    """The frozen vision tower that encodes thought videos. Features are stored in float16, whatever its dtype.

    Args:
        batch_size (`int`, *optional*, defaults to `32`):
            Thought videos encoded together.
    """

    batch_size: PositiveInt = 32


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Limits of reading one clip. A clip that exceeds one is rejected with that reason.

    Args:
        timeout_seconds (`float`, *optional*, defaults to `120.0`):
            Seconds for one reading of one clip. How much is read in them depends on the machine, so no clip that can be read
            should come near it; it is not part of what a build is compared by. Rows that had less are taken up again.
        limits ([`VideoLimits`], *optional*):
            Largest clip, and largest result of reading it, whatever its header claims.
        video_backend (`str`, *optional*, defaults to `"auto"`):
            Decoder of the clips: `pyav`, `decord` or `torchcodec`. `auto` is PyAV, unless `STORM_VIDEO_BACKEND` names another.
    """

    timeout_seconds: PositiveFloat = 120.0
    limits: VideoLimits = field(default_factory=VideoLimits)
    video_backend: str = "auto"

    def __post_init__(self) -> None:
        check_values(self)
        check_backend_name(self.video_backend)


@dataclass(frozen=True, kw_only=True)
class ThoughtsRecipe:
    """Recipe of a thought-video data set.

    Args:
        output_dir (`str`):
            The data set to be.
        encoder ([`EncoderSettings`]):
            Encodes thought videos.
        targets ([`TargetSettings`]):
            Settings of the target trajectories.
        generator (`Mapping[str, Any]`):
            Its kind, `simulator`, `rendered_chain`, `evidence`, `future`, `segments`, `folder` or `diffusers`, and the settings
            of it.
        sources (`Mapping[str, tuple[SourceConfig, ...]]`, *optional*):
            Annotations of each split.
        world ([`WorldRecipe`], *optional*):
            Episodes instead of annotations.
        films ([`FilmRecipe`], *optional*):
            Questions about parts of films instead of annotations. Of sources, world and films exactly one is given.
        prompts (`Mapping[str, Any]`, *optional*):
            Its kind, and the settings of it: `template`, a [`TemplatePrompt`]; `chat`, a [`ServedChat`] behind a server of
            OpenAI's kind; `pipeline`, a [`PipelineChat`] in each process of the build. By default the template.
        gates (`Mapping[str, Any]`, *optional*):
            From `static`, `scene_break`, `first_frame`, `stated_answer`, `visual_gain`, `answer_free`, `giveaway` and
            `duplicate` to their settings, in the order they are passed. The three before the last ask a frozen model, a
            [`FrozenScorer`], and take the settings of [`ScorerSettings`] besides their own. A gate that makes no sense for
            a generator is refused with the reason.
        reading ([`ReadingSettings`], *optional*):
            Limits of reading one clip.
        frame_size (`tuple[int, int]`, *optional*):
            Height and width that thought videos are scaled and cropped to. Without it, those of another size than the
            first one that was kept are rejected, since features of one data set have one shape.
        embed (`str`, *optional*, defaults to `"reference"`):
            `copy` copies question clips into the data set, `reference` names them where they lie. Clips that had to be cut
            lie in the data set.
        keep_thoughts (`bool`, *optional*, defaults to `True`):
            Whether the files of thought videos stay. Features are stored in any case.
        rows_per_shard (`int`, *optional*, defaults to `64`):
            A killed build repeats at most the shards that were being written.
        seed (`int`, *optional*, defaults to `0`):
            With the id of a row it gives the seed of its thought video.
    """

    output_dir: str
    encoder: EncoderSettings
    targets: TargetSettings
    generator: Mapping[str, Any]
    sources: Mapping[str, tuple[SourceConfig, ...]] = field(default_factory=dict)
    world: WorldRecipe | None = None
    films: FilmRecipe | None = None
    prompts: Mapping[str, Any] = field(default_factory=lambda: {"template": {}})
    gates: Mapping[str, Any] = field(default_factory=dict)
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    frame_size: tuple[int, int] | None = None
    embed: Literal["reference", "copy"] = "reference"
    keep_thoughts: bool = True
    rows_per_shard: PositiveInt = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)
        if sum(map(bool, (self.sources, self.world, self.films))) != 1:
            raise ConfigurationError(
                "Expected a recipe with either sources or a world or films, and one of them only."
            )
        if "train" not in self.splits:
            raise ConfigurationError(
                f"Expected a split called train, to learn the whitening on, but got {sorted(self.splits)}."
            )
        if self.frame_size is not None and any(size < 2 or size % 2 for size in self.frame_size):
            raise ConfigurationError(f"Expected frame_size as an even height and width but got {self.frame_size}.")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order of the recipe."""
        drawn = self.world or self.films
        return tuple(drawn.splits if drawn else self.sources)

    @property
    def shows_evidence(self) -> bool:
        """True if its generator shows what annotations say of the reasoning: chains of thought, intervals, key frames."""
        return not {"rendered_chain", "evidence"}.isdisjoint(self.generator)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ThoughtsRecipe":
        """Make a recipe of what a YAML file holds.

        Raises:
            ConfigurationError: If a key is missing or unknown, or a value out of its range, or if the world or its
                splits cannot exist as asked.
        """
        if isinstance(content, Mapping) and isinstance(content.get("world"), str):
            raise ConfigurationError(
                f"Expected a world as a mapping but got {content['world']!r}. Put `world`, `knobs`, `splits` and `seed` of an "
                "earlier recipe below `world`, and add `generator: {simulator: {}}` and `encoder: {model: ...}`."
            )
        return make_settings(cls, content, "the recipe")

    @classmethod
    def read(cls, path: str | Path, **changes: object) -> "ThoughtsRecipe":
        """Read a recipe from a YAML file.

        Args:
            path (`str` or `Path`):
                The file.
            changes (`Any`):
                Keys of the file to replace; None leaves one as it is. `encoder_model` replaces the model of the encoder.

        Raises:
            ConfigurationError: If the file cannot be read, a key is missing or unknown, or a value out of its range.
        """
        model = changes.pop("encoder_model", None)
        content = read_yaml(Path(path)) | {name: value for name, value in changes.items() if value is not None}
        encoder = content.get("encoder") or {}
        if model is not None and isinstance(encoder, Mapping):
            content["encoder"] = {**encoder, "model": model}
        try:
            return cls.from_dict(content)
        except ConfigurationError as error:
            raise ConfigurationError(f"The recipe {path} cannot be used. {error}") from error
