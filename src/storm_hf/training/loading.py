"""Loading for a run: a model, plain or already a STORM, with its processor, and rows whose videos can be found.

A pretrained backbone sees already. A random one, as small enough for two processor cores, must learn it before its vision tower
can be frozen and make targets of thought videos; so it learns to describe both kinds of video.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset, DatasetDict, Features, List, Value, Video, load_dataset
from datasets.exceptions import DatasetsError
from peft import PeftModel
from pyarrow import ArrowException, ArrowInvalid
from transformers import AutoProcessor, BitsAndBytesConfig, PreTrainedConfig, ProcessorMixin
from trl import ModelConfig, get_quantization_config
from yaml import YAMLError

from storm_hf.checkpoints.adapter import AdapterFolder, base_config, find_adapter, with_storm
from storm_hf.checkpoints.loading import read_config
from storm_hf.errors import CheckpointError, ConfigurationError, DatasetError, first_line, one_line
from storm_hf.hub.dataset_folder import rows_folder
from storm_hf.hub.published_shards import fetch_videos, is_published, with_clips
from storm_hf.model import StormConfig, StormForConditionalGeneration, add_latent_tokens, storm_processor
from storm_hf.model.backbone_storm import keep_layout
from storm_hf.optional import require
from storm_hf.pipeline.paths import with_absolute_paths, with_origin
from storm_hf.settings import PositiveInt, check_values, with_help
from storm_hf.training.peft import continue_adapter, outside_decoder


# Errors of `datasets` and of the readers that it calls about files that are damaged, empty, or of several forms.
_UNREADABLE_ROWS = (DatasetsError, ArrowException, YAMLError, LookupError, RuntimeError, StopIteration, ValueError)
_SHOWN_CHARACTERS = 240


@with_help
@dataclass
class StormModelConfig(ModelConfig):
    r"""
    Checkpoint that a run starts from, and its changes. Adds to [`~trl.ModelConfig`]:

    Parameters:
        latent_projector (`str`, *optional*):
            For a plain checkpoint: `"linear"` (the default), `"mlp"` or `"identity"` (the paper's: the hidden state itself). A
            STORM has its own.
        latent_scale (`float`, *optional*):
            Factor between a latent and the embedding that is fed; see [`StormConfig`]. By default the checkpoint's own, and
            for a plain one the root mean square of its token embeddings, or 1 for `latent_projector: identity`.
        latent_attention (`str`, *optional*):
            Context of a latent, `"full"` or `"step"`; see [`StormConfig`]. By default the checkpoint's own, and for a plain
            one `"full"`.
        thought_adapter_rank (`int`, *optional*):
            Rank of an adapter that acts from `<|latent_start|>` on, and is trained instead of the language model, which stays as it
            is where it does not think; see [`StormConfig`]. A checkpoint that has one keeps it.
        num_frames (`int`, *optional*):
            Number of frames that are read of each clip, saved with the processor. By default what the processor says.

    With `load_in_4bit` or `load_in_8bit` the language model is quantized, and only an adapter can be trained on it: `use_peft`.
    """

    latent_projector: Literal["linear", "mlp", "identity"] | None = None
    latent_scale: float | None = None
    latent_attention: Literal["full", "step"] | None = None
    thought_adapter_rank: PositiveInt | None = None
    num_frames: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_values(self, inspect.get_annotations(StormModelConfig))
        if (self.load_in_4bit or self.load_in_8bit) and not self.use_peft:
            raise ConfigurationError(
                "`load_in_4bit` and `load_in_8bit` need `use_peft: true`, got false: no gradient reaches quantized weights, so "
                "an adapter beside them has to learn. Add `use_peft: true`, or leave the quantization out."
            )
        if self.thought_adapter_rank is not None and self.use_peft:
            raise ConfigurationError(
                "`thought_adapter_rank` and `use_peft: true` are two adapters, of which the first alone leaves the language model as "
                "it is. Leave one of them out."
            )
        super().__post_init__()


def load_storm(
    args: StormModelConfig, num_latents: int | None = None
) -> tuple[StormForConditionalGeneration | PeftModel, ProcessorMixin]:
    """Load a STORM, or make one of a plain video-language checkpoint, with the processor that belongs to it.

    A folder in which a trainer saved an adapter is loaded with its base. With `use_peft` the same adapter is trained on: both
    stages end in one, and a quantized base is never rounded a second time. Without, it is merged, and the whole model trained.

    Args:
        args ([`StormModelConfig`]):
            Names the checkpoint.
        num_latents (`int`, *optional*):
            Number K of latent steps, which model and processor then agree on. By default the checkpoint's own, and 8 for a
            plain one.

    Returns:
        `tuple`: The model, a [`~peft.PeftModel`] if it goes on with an adapter, and its processor.

    Raises:
        BackboneError: If the checkpoint is not a video-language model.
        CheckpointError: If there is no such checkpoint, a STORM is asked for another projector than its own, or an adapter is not
            whole.
    """
    adapter = find_adapter(args.model_name_or_path, revision=args.model_revision)
    if adapter is None:
        model, processor = _load_whole(args, num_latents)
    else:
        model, processor = _load_adapter(args, adapter, num_latents)
    _add_thought_adapter(model, args.thought_adapter_rank)
    keep_layout(model)  # an evaluation between two steps of training changes no weights
    if args.num_frames is not None:
        sampler = processor.video_processor
        sampler.do_sample_frames, sampler.num_frames, sampler.fps = True, args.num_frames, None
    return model, processor


def _add_thought_adapter(model: StormForConditionalGeneration | PeftModel, rank: int | None) -> None:
    """Put a thought adapter on a model that shall have one, unless a run before did.

    Raises:
        ConfigurationError: If it has one of another rank.
    """
    known = model.config.thought_adapter
    if rank is None or (known or {}).get("r") == rank:
        return
    if known is not None:
        raise ConfigurationError(
            f"Expected `thought_adapter_rank: {known.get('r')}`, which the checkpoint has, got {rank}. Leave it out, or start from a "
            "checkpoint without a thought adapter."
        )
    model.add_thought_adapter(**thought_settings(rank))


def thought_settings(rank: int) -> dict[str, int]:
    """Choose the arguments of a thought adapter of some rank."""
    return {"r": rank, "lora_alpha": 2 * rank}


def _load_whole(
    args: StormModelConfig, num_latents: int | None
) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    name, revision = args.model_name_or_path, args.model_revision
    config = read_config(name, revision=revision)
    loading = _loading(args) | {"quantization_config": quantization(args, config)}
    if config.model_type == "storm":
        config = _adapted(config, args, num_latents)
        processor = AutoProcessor.from_pretrained(name, revision=revision)
        add_latent_tokens(processor, config.num_latents)
        return StormForConditionalGeneration.from_pretrained(name, config=config, **loading), processor
    num_latents = StormConfig.num_latents if num_latents is None else num_latents
    processor = storm_processor(name, num_latents, revision=revision)
    model = StormForConditionalGeneration.from_backbone(
        name,
        num_latents,
        processor=processor,
        latent_projector=args.latent_projector or StormConfig.latent_projector,
        latent_scale=args.latent_scale,
        latent_attention=args.latent_attention or StormConfig.latent_attention,
        **loading,
    )
    return model, processor


def _load_adapter(
    args: StormModelConfig, adapter: AdapterFolder, num_latents: int | None
) -> tuple[StormForConditionalGeneration | PeftModel, ProcessorMixin]:
    """The base as the adapter knew it, and the adapter on it."""
    _check_projector(args, adapter.storm.get("latent_projector"))
    base_config(adapter)
    num_latents = adapter.storm.get("num_latents") if num_latents is None else num_latents
    of_base: dict[str, Any] = {
        "model_name_or_path": adapter.base,
        "model_revision": adapter.revision or StormModelConfig.model_revision,
        "latent_projector": adapter.storm.get("latent_projector"),
        "latent_scale": adapter.storm.get("latent_scale") if args.latent_scale is None else args.latent_scale,
        "latent_attention": args.latent_attention or adapter.storm.get("latent_attention"),
    }
    model, _ = _load_whole(replace(args, **of_base), num_latents)
    model.config.storm_prompt = adapter.storm.get("storm_prompt", model.config.storm_prompt)
    processor = AutoProcessor.from_pretrained(adapter.path)
    add_latent_tokens(processor, model.config.num_latents)
    adapted = continue_adapter(model, adapter)
    return (adapted if args.use_peft else adapted.merge_and_unload().requires_grad_(True)), processor


def _loading(args: StormModelConfig) -> dict[str, Any]:
    chosen = {
        "revision": args.model_revision,
        "dtype": args.dtype,
        "attn_implementation": args.attn_implementation,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _adapted(config: PreTrainedConfig, args: StormModelConfig, num_latents: int | None) -> PreTrainedConfig:
    """The configuration of a STORM with another K, scale or attention."""
    _check_projector(args, config.latent_projector)
    wanted = {
        "num_latents": num_latents,
        "max_num_latents": None if num_latents is None else max(num_latents, config.max_num_latents),
        "latent_scale": args.latent_scale,
        "latent_attention": args.latent_attention,
    }
    return with_storm(config, {name: value for name, value in wanted.items() if value is not None})


def _check_projector(args: StormModelConfig, trained: str | None) -> None:
    if trained is not None and args.latent_projector not in (None, trained):
        raise CheckpointError(
            f"Expected `latent_projector: {trained}`, which {args.model_name_or_path} was trained with, got "
            f"{args.latent_projector!r}. Leave it out, or start from the plain checkpoint."
        )


def load_rows(name_or_path: str, config: str | None = None) -> DatasetDict:
    """Load a data set, on the Hub or in a folder, whose paths of videos can be opened from anywhere.

    Args:
        name_or_path (`str`):
            Argument of [`~datasets.load_dataset`]. In a folder, paths of videos are relative to it, so that it can be moved. The
            run of a demo stands for its `data`.
            Of a data set that `storm push` published the videos are downloaded; rows whose clip was withheld are left out.
            Videos stay files or bytes, also those of a folder of videos, and are decoded when a row is read.
        config (`str`, *optional*):
            Name of a configuration, such as `"videos"`.

    Returns:
        [`~datasets.DatasetDict`]: One data set per split.

    Raises:
        DatasetError: If there is no such data set, it cannot be loaded, or it is a file, such as one of annotations.
    """
    if not name_or_path:
        raise DatasetError(
            "Expected the name or the folder of a data set, got none. Give one: `--dataset_name data/mine`."
        )
    if Path(name_or_path).is_file():
        raise DatasetError(
            f"Expected a built data set, a folder or a name on the Hub, got the file {name_or_path}. Build one of its rows with "
            "`storm build RECIPE`; Stage II alone also trains on "
            f'`load_dataset("json", data_files="{name_or_path}")` in Python.'
        )
    if Path(name_or_path).is_dir():
        name_or_path = str(rows_folder(name_or_path))
    folder = Path(name_or_path)
    splits = {name: _undecoded(rows) for name, rows in _load_splits(name_or_path, config).items()}
    for rows in splits.values():
        check_text(rows, name_or_path)
    if folder.is_dir():
        for name, rows in splits.items():
            splits[name] = with_absolute_paths(rows, folder.resolve())
    elif all(is_published(rows) for rows in splits.values()):
        videos = fetch_videos(name_or_path)
        for name, rows in splits.items():
            splits[name] = with_absolute_paths(with_clips(rows), videos)
    place = str(folder.resolve()) if folder.is_dir() else name_or_path
    return DatasetDict({name: with_origin(rows, place) for name, rows in splits.items()})


def _load_splits(name_or_path: str, config: str | None) -> DatasetDict:
    """Load what `datasets` finds."""
    try:
        with unreadable_rows_named(name_or_path):
            return load_dataset(name_or_path, name=config)
    except (FileNotFoundError, ConnectionError) as error:
        if Path(name_or_path).is_dir():
            raise DatasetError(
                f"Expected a built data set in {name_or_path}, got a folder without one ({first_line(error)}). Build it with "
                "`storm build RECIPE`."
            ) from error
        raise DatasetError(
            f"There is no folder {name_or_path}, and no data set of that name could be had from the Hub. `storm build RECIPE` "
            "builds one."
        ) from error


@contextmanager
def unreadable_rows_named(place: str) -> Iterator[None]:
    """Name the data set in what `datasets` raises about files that it cannot load.

    Args:
        place (`str`):
            Its folder or file, or its name on the Hub.

    Raises:
        DatasetError: If it cannot be loaded.
    """
    try:
        yield
    except (FileNotFoundError, ConnectionError):
        raise
    except _UNREADABLE_ROWS as error:
        reason = one_line(error.__cause__ or error)[:_SHOWN_CHARACTERS]
        raise DatasetError(
            f"The data set {place} cannot be loaded, since `datasets` says: {reason.rstrip('.')}. Correct its files; all of "
            "them need the same columns."
        ) from error


def check_text(rows: Dataset, place: str) -> None:
    """Make sure that texts are UTF-8, which `datasets` does not look at: a row would fail only once it is read.

    Args:
        rows ([`~datasets.Dataset`]):
            The rows.
        place (`str`):
            Folder or file, or name on the Hub.

    Raises:
        DatasetError: If they are not.
    """
    for name in rows.column_names:
        column = rows.data.column(name)
        try:
            if "string" in str(column.type):
                column.validate(full=True)
        except ArrowInvalid as error:
            raise DatasetError(
                f"Expected texts in UTF-8 in the column `{name}` of {place}, got bytes that are none. Write its files anew, as with "
                "`iconv -f latin1 -t utf-8`."
            ) from error


def _undecoded(rows: Dataset) -> Dataset:
    """Leave videos as files or bytes, which are sampled before they are decoded."""
    for name, feature in rows.features.items():
        if isinstance(feature, Video):
            rows = rows.cast_column(name, Video(decode=False))
    return rows


def pick_split(dataset: DatasetDict, name: str, argument: str = "dataset_train_split") -> Dataset:
    """Take a split of a data set.

    Args:
        dataset ([`~datasets.DatasetDict`]):
            All splits.
        name (`str`):
            The split.
        argument (`str`, *optional*, defaults to `"dataset_train_split"`):
            Argument of the script that names it, for the message.

    Raises:
        DatasetError: If there is no such split.
    """
    if name not in dataset:
        raise DatasetError(
            f"The data set has no split {name!r}; it has {', '.join(dataset)}. Name one with --{argument}."
        )
    return dataset[name]


def quantization(args: ModelConfig, config: PreTrainedConfig) -> BitsAndBytesConfig | None:
    """Configure the quantization that a run's arguments ask for.

    Only projections of the language model are quantized. The latent projector is trained, the targets of Stage I are made by
    the vision tower and its merger, and TRL multiplies with the weights of the head: these stay as they are.

    Args:
        args ([`~trl.ModelConfig`]):
            `load_in_4bit` or `load_in_8bit`, and what goes with them.
        config ([`~transformers.PreTrainedConfig`]):
            Configuration of the checkpoint, plain or a STORM.

    Returns:
        [`~transformers.BitsAndBytesConfig`] or `None`: What `from_pretrained` takes as `quantization_config`.

    Raises:
        DependencyError: If `bitsandbytes` is not installed.
    """
    if not (args.load_in_4bit or args.load_in_8bit):
        return None
    require("bitsandbytes")
    compute = "bfloat16" if args.dtype in (None, "auto") else args.dtype
    quantized = get_quantization_config(replace(args, dtype=compute))
    if config.model_type != StormConfig.model_type:
        config = StormConfig(vlm_config=config)
    with torch.device("meta"):
        quantized.llm_int8_skip_modules = outside_decoder(StormForConditionalGeneration(config))
    return quantized


_CAPTION_QUESTION = "Describe the clip."
_CAPTION_OF = {"video": "clip_caption", "thought_video": "thought_caption"}


def caption_rows(dataset: Dataset) -> Dataset:
    """Ask for the caption of each question clip and of each thought video.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows of a world, with the columns `video`, `clip_caption`, `thought_video` and `thought_caption`. A video that is
            missing in a row is left out.

    Returns:
        [`~datasets.Dataset`]: Rows with `video`, `question`, `options` (none) and `answer`, question clips first.
        [`StormAnswerTrainer`] trains on them with `num_latents=0` and `freeze_vision=False`.

    Raises:
        DatasetError: If a column is missing, or a video has no caption.
    """
    pairs = [pair for video, caption in _CAPTION_OF.items() for pair in _captioned(dataset, video, caption)]
    columns = {
        "video": [video for video, _ in pairs],
        "question": [_CAPTION_QUESTION] * len(pairs),
        "options": [None] * len(pairs),
        "answer": [caption for _, caption in pairs],
    }
    text = Value("string")
    return Dataset.from_dict(
        columns, features=Features({"video": text, "question": text, "options": List(text), "answer": text})
    )


def _captioned(dataset: Dataset, video: str, caption: str) -> list[tuple[str, str]]:
    if missing := sorted({video, caption} - set(dataset.column_names)):
        raise DatasetError(
            f"Expected a data set with captions of its videos, but {' and '.join(missing)} is missing from "
            f"{sorted(dataset.column_names)}. Build one of a world: `storm build shuffle_tiny`."
        )
    pairs = [(path, text) for path, text in zip(dataset[video], dataset[caption], strict=True) if path is not None]
    if not all(text for _, text in pairs):
        raise DatasetError(
            f"Expected a caption for every video of the column `{video}`, but some rows of `{caption}` are empty. Leave "
            "those rows out."
        )
    return pairs
