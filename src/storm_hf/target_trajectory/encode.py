"""Thought frames through the backbone's own frozen vision tower and merger.

Axes: B clips of a batch, T frames, H height and W width in pixels, P temporal patches, C cells of a patch, D hidden size.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.image_utils import ChannelDimension
from transformers.video_utils import VideoMetadata

from storm_hf.errors import BackboneError, LatentError
from storm_hf.inputs.wording import ASKED_COLUMNS
from storm_hf.model.video_features_storm import to_float16
from storm_hf.pipeline.paths import relative_to
from storm_hf.target_trajectory.schema import CLIP_COLUMNS, FEATURES_COLUMN, storm_thoughts_features
from storm_hf.target_trajectory.shards import write_shard
from storm_hf.thought_video import AskedExample, ThoughtExample, WorldExample


def encode_frames(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    clips: Iterable[np.ndarray],
    *,
    fps: float,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Encode clips with the vision tower and merger of a backbone.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A STORM, or a plain backbone of `AutoModelForImageTextToText`. It is left in the mode it came in.
        processor ([`~transformers.ProcessorMixin`]):
            The one of the backbone: its video processor scales and normalises, and samples nothing.
        clips (iterable of `np.ndarray` of shape `(num_frames, height, width, 3)`):
            RGB frames, `uint8`. No more than `batch_size` of them are held at a time.
        fps (`float`):
            Frames shown per second.
        batch_size (`int`, *optional*, defaults to `32`):
            Clips encoded together.

    Returns:
        `list[np.ndarray]`: Per clip features of shape `(num_temporal_patches, num_cells, hidden_size)`, float16, tokens in
        the order time, height, width. Qwen's towers see two frames per temporal patch, the others one.

    Raises:
        BackboneError: If the backbone or its processor cannot encode videos (the message says what is missing), or its
            features are not finite.
        LatentError: If a clip is not `uint8` frames of the shape above.
    """
    backbone = getattr(model, "backbone", model)
    if getattr(processor, "video_processor", None) is None:
        raise BackboneError(f"Expected a processor with a video processor but got {type(processor).__name__}.")
    features: list[np.ndarray] = []
    with _evaluating(backbone), torch.no_grad():
        for batch in _batches(clips, batch_size):
            inputs = _process(processor, batch, fps).to(backbone.device, backbone.dtype)
            features += [to_float16(clip).numpy() for clip in _encode(backbone, inputs)]
    return features


def _batches(clips: Iterable[np.ndarray], batch_size: int) -> Iterator[list[np.ndarray]]:
    """Cut clips into batches of one shape each, in their order: most video processors stack what they get."""
    for _, alike in groupby(clips, key=_checked_shape):
        while batch := list(islice(alike, batch_size)):
            yield batch


def _checked_shape(clip: np.ndarray) -> tuple[int, ...]:
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8 or clip.size == 0:
        raise LatentError(
            "Expected clips of uint8 frames of shape (num_frames, height, width, 3) but got "
            f"{clip.dtype} of shape {clip.shape}. Read them with `read_video`."
        )
    return clip.shape


def _process(processor: ProcessorMixin, clips: list[np.ndarray], fps: float) -> BatchFeature:
    metadata = [
        VideoMetadata(
            total_num_frames=len(clip), fps=fps, duration=len(clip) / fps, frames_indices=list(range(len(clip)))
        )
        for clip in clips
    ]
    return processor.video_processor(
        videos=clips,
        video_metadata=metadata,
        do_sample_frames=False,
        input_data_format=ChannelDimension.LAST,
        return_tensors="pt",
    )


def _encode(backbone: PreTrainedModel, inputs: BatchFeature) -> list[torch.Tensor]:
    """Give each clip's features as (P, C, D), by whichever way of encoding videos the backbone has."""
    if "video_grid_thw" in inputs:
        return _encode_grids(backbone, inputs)
    if hasattr(backbone, "get_video_features"):
        return _encode_videos(backbone, inputs)
    if hasattr(backbone, "get_image_features"):
        return _encode_as_images(backbone, inputs)
    raise BackboneError(
        f"Expected `get_video_features` or `get_image_features` in {type(backbone).__name__} but it has neither, so thought "
        "videos cannot be encoded. Use a backbone such as Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM or InternVL."
    )


def _encode_grids(backbone: PreTrainedModel, inputs: BatchFeature) -> list[torch.Tensor]:
    """Qwen-VL: patches of all videos in one row, and a grid with the size of each."""
    grids = inputs["video_grid_thw"]
    encoded = backbone.get_video_features(inputs["pixel_values_videos"], grids, return_dict=True).pooler_output
    temporal_patches = grids[:, 0].tolist()
    return [tokens.unflatten(0, (patches, -1)) for tokens, patches in zip(encoded, temporal_patches, strict=True)]


def _encode_videos(backbone: PreTrainedModel, inputs: BatchFeature) -> list[torch.Tensor]:
    """LLaVA-OneVision: frames of one size and, after the tokens of a video, one that marks its end.

    A single frame is shown twice, since its tokens alone do not tell whether one of them is that mark.
    """
    pixels = inputs["pixel_values_videos"]  # (B, T, 3, H, W)
    num_frames = pixels.shape[1]
    shown = pixels if num_frames > 1 else pixels.repeat(1, 2, 1, 1, 1)
    encoded = backbone.get_video_features(shown, return_dict=True).pooler_output
    num_cells = encoded.shape[1] // shown.shape[1]
    return list(encoded[:, : num_cells * num_frames].unflatten(1, (num_frames, num_cells)))


def _encode_as_images(backbone: PreTrainedModel, inputs: BatchFeature) -> list[torch.Tensor]:
    """SmolVLM takes a video as a row of images, InternVL takes all frames as one batch of images."""
    if "pixel_attention_mask" in inputs:
        pixels, mask = inputs["pixel_values"], inputs["pixel_attention_mask"]  # (B, T, 3, H, W), (B, T, H, W)
        encoded = backbone.get_image_features(pixels, pixel_attention_mask=mask, return_dict=True).pooler_output
        return [tokens.unflatten(0, (pixels.shape[1], -1)) for tokens in encoded]
    pixels = inputs["pixel_values_videos"]  # (B, T, 3, H, W)
    encoded = backbone.get_image_features(pixels.flatten(0, 1), return_dict=True).pooler_output
    return list(encoded.unflatten(0, pixels.shape[:2]))


def encoder_revision(model: PreTrainedModel) -> str:
    """Name the weights that encode: twelve hex digits of the hash of everything but the language model.

    Two encoders with one revision give the same features, whatever their names.
    """
    backbone = getattr(model, "backbone", model)
    language = [backbone.get_decoder(), backbone.get_input_embeddings(), backbone.get_output_embeddings()]
    excluded = {id(parameter) for module in language if module is not None for parameter in module.parameters()}
    digest = sha256()
    for name, parameter in sorted(backbone.named_parameters()):
        if id(parameter) not in excluded:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _row_of(example: ThoughtExample, folder: Path) -> dict[str, Any]:
    """Describe an example by the columns of `storm_thoughts_features`, without those that an encoder fills.

    Args:
        example ([`ThoughtExample`]):
            A world's example gets the columns of a world.
        folder (`Path`):
            The data set: paths of videos that lie in it become relative to it.
    """
    thought = example.thought
    row: dict[str, Any] = {
        "id": example.id,
        "video": relative_to(example.video, folder),
        "question": example.question,
        "options": list(example.options),
        "answer": example.answer,
        "thought_fps": thought.fps,
        "thought_source": thought.source,
        "thought_prompt": thought.prompt,
        "thought_video": None if thought.path is None else relative_to(thought.path, folder),
        "seed": thought.seed,
        "generator": thought.generator,
        "generator_revision": thought.generator_revision,
        "license": thought.license,
    }
    if isinstance(example, WorldExample):
        names = ("depth", "chain_of_thought", "terse_chain", "clip_caption", "thought_caption")
        row |= {name: getattr(example, name) for name in names}
        row["states"] = list(example.states)
        if isinstance(example, AskedExample):
            row |= {name: getattr(example, name) for name in ASKED_COLUMNS}
            row["choices"] = list(example.choices)
    else:
        row |= {name: getattr(example, name) for name in CLIP_COLUMNS}
    return row


def hash_rows(examples: Sequence[ThoughtExample], folder: Path) -> str:
    """Hash the rows of a split, to notice when they are others."""
    digest = sha256()
    for example in examples:
        digest.update(json.dumps(_row_of(example, folder), sort_keys=True).encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ShardEncoder:
    """Turns examples into shards. The rows of one shard at a time are in memory.

    Args:
        folder (`Path`):
            The data set: paths of videos that lie in it are stored relative to it.
        model ([`~transformers.PreTrainedModel`]):
            Its frozen vision tower encodes, in the dtype and on the device that it has.
        processor ([`~transformers.ProcessorMixin`]):
            The processor of the model.
        name (`str`):
            Name of the model, to be recorded.
        batch_size (`int`, *optional*, defaults to `32`):
            Thought videos encoded together.
        is_world (`bool`, *optional*, defaults to `False`):
            Whether all examples are a world's.
        has_wordings (`bool`, *optional*, defaults to `False`):
            Whether all examples are [`~storm_hf.thought_video.AskedExample`]s.
        keeps_thoughts (`bool`, *optional*, defaults to `True`):
            Whether rows name the files of their thought videos.
        feature_shape (`tuple[int, int]`, *optional*):
            Cells of a temporal patch and size of each that all shards have; by default those of the first row of each.
    """

    folder: Path
    model: PreTrainedModel
    processor: ProcessorMixin
    name: str
    batch_size: int = 32
    is_world: bool = False
    has_wordings: bool = False
    keeps_thoughts: bool = True
    feature_shape: tuple[int, int] | None = None

    @cached_property
    def revision(self) -> str:
        """Hash of the weights that encode."""
        return encoder_revision(self.model)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters besides the examples that determine the rows."""
        video_processor = json.loads(self.processor.video_processor.to_json_string())
        parameters = {"encoder": self.name, "encoder_revision": self.revision, "video_processor": video_processor}
        return parameters if self.is_world else {**parameters, "provenance": list(CLIP_COLUMNS)}

    def write(self, examples: Sequence[ThoughtExample], path: Path) -> None:
        """Encode the thought videos of some examples and write their rows.

        Args:
            examples (`Sequence[ThoughtExample]`):
                At least one. Their thought videos have one resolution.
            path (`Path`):
                Output path. The caller renames it once it is complete.

        Raises:
            DatasetError: If the thought videos do not all encode to one shape.
            VideoReadError: If a thought video cannot be read.
            BackboneError: If the backbone cannot encode videos.
        """
        features: list[np.ndarray] = []
        for fps, alike in groupby(examples, key=lambda example: example.thought.fps):
            clips = (example.thought.read() for example in alike)
            features += encode_frames(self.model, self.processor, clips, fps=fps, batch_size=self.batch_size)
        rows = [
            {**self._words(example), FEATURES_COLUMN: encoded}
            for example, encoded in zip(examples, features, strict=True)
        ]
        num_cells, hidden_size = self.feature_shape or features[0].shape[1:]
        columns = storm_thoughts_features(
            hidden_size, num_cells, is_world=self.is_world, has_wordings=self.has_wordings
        )
        write_shard(path, rows, columns)

    def _words(self, example: ThoughtExample) -> dict[str, Any]:
        row = _row_of(example, self.folder) | {"encoder": self.name, "encoder_revision": self.revision}
        return row if self.keeps_thoughts else row | {"thought_video": None}


def feature_shape_of(model: PreTrainedModel, processor: ProcessorMixin, example: ThoughtExample) -> tuple[int, int]:
    """Cells of a temporal patch, and the size of each, that the thought video of an example has once it is encoded."""
    thought = example.thought
    num_cells, size = encode_frames(model, processor, [thought.read()], fps=thought.fps)[0].shape[1:]
    return num_cells, size
