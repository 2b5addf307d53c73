"""Adapter folder: its contents, the checkpoint that it belongs to, and its loading for inference.

    adapter_config.json, adapter_model.safetensors   what PEFT writes: LoRA and the latent projector, and the base's name
    storm_config.json                                what STORM adds to the base: K, the projector's kind, the scale, the ids
    processor and card; after Stage I the statistics of the targets

The base may be a STORM, whose folder carries the code: then `AutoModelForImageTextToText.from_pretrained(folder)` opens the
adapter, with the base's own scale and attention: one that was trained with others (`latent_scale`, `latent_attention`) is
opened by `load_adapted`, or merged. The base may as well be a plain checkpoint such as Qwen2.5-VL, and nothing of it is copied:
then `load_adapted` opens it, as `storm ask` and the trainers do; the Auto classes would look for the adapter's modules in the
plain model, and say so. After `merge_and_unload` and `save_pretrained` either is a checkpoint like any other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedConfig, ProcessorMixin
from transformers.utils import cached_file, find_adapter_config_file

from storm_hf.atomic import written_atomically
from storm_hf.errors import CheckpointError
from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.optional import require


_STORM_FILE = "storm_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_MAGNITUDE = ".lora_magnitude_vector"  # of DoRA
_OF_STORM = (
    "num_latents",
    "latent_start_token_id",
    "latent_token_id",
    "latent_end_token_id",
    "latent_projector",
    "latent_scale",
    "latent_attention",
    "storm_prompt",
    "trained_on",
)


@dataclass(frozen=True)
class AdapterFolder:
    """A saved adapter and what it belongs to.

    Attributes:
        path (`Path`):
            The folder; for a name on the Hub, its place in the cache.
        base (`str`):
            The checkpoint that the adapter was trained on, plain or a STORM.
        revision (`str`, *optional*):
            Its revision.
        storm (`Mapping[str, Any]`):
            STORM's additions to the base's configuration. Empty if the adapter was saved by another trainer.
    """

    path: Path
    base: str
    revision: str | None
    storm: Mapping[str, Any]

    @property
    def place(self) -> dict[str, Any]:
        """Name or folder of the base, as `from_pretrained` takes it."""
        return {} if self.revision is None else {"revision": self.revision}


def find_adapter(name_or_path: str, **place: object) -> AdapterFolder | None:
    """Tell whether a folder, or a repository on the Hub, is an adapter, and read what it belongs to.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.
        place:
            `revision` and what else says where it lies.

    Returns:
        [`AdapterFolder`] or `None`: `None` if it holds no adapter, or a whole model beside one.

    Raises:
        CheckpointError: If the adapter does not name its base.
        DependencyError: If it is an adapter, and `peft` is not installed.
    """
    if Path(name_or_path, "config.json").is_file():
        return None
    found = find_adapter_config_file(name_or_path, **place)
    if found is None:
        return None
    require("peft")
    config = json.loads(Path(found).read_text())
    base = config.get("base_model_name_or_path")
    if not base:
        raise CheckpointError(
            f"Expected `base_model_name_or_path` in {found}: the checkpoint that the adapter was trained on. Write it there."
        )
    path = Path(found).parent
    if not Path(name_or_path).is_dir():
        for file in (
            _WEIGHTS_FILE,
            _STORM_FILE,
        ):  # into the same snapshot; a missing file is raised where it is needed
            cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False, **place)
    storm = path / _STORM_FILE
    return AdapterFolder(path, base, config.get("revision"), json.loads(storm.read_text()) if storm.is_file() else {})


def save_storm_config(config: PreTrainedConfig, folder: str | Path) -> None:
    """Write what STORM adds to a backbone beside an adapter.

    Args:
        config ([`StormConfig`]):
            Configuration of the model that the adapter was trained on.
        folder (`str` or `Path`):
            The adapter's folder.
    """
    known = config.to_dict()
    added = {name: known[name] for name in _OF_STORM if name in known}
    Path(folder, _STORM_FILE).write_text(json.dumps(added, indent=2) + "\n")


def full_name(name: str) -> str:
    """Complete the name of a DoRA magnitude, from which PEFT leaves `.weight` off when it saves."""
    return f"{name}.weight" if name.endswith(_MAGNITUDE) else name


def write_full_names(folder: str | Path) -> None:
    """Write the weights of a saved adapter by their full names, by which PEFT and transformers both open them.

    Args:
        folder (`str` or `Path`):
            The adapter's folder.
    """
    path = Path(folder, _WEIGHTS_FILE)
    if any(name != full_name(name) for name in _names_in(path)):
        state = {full_name(name): weight for name, weight in load_file(path).items()}
        with written_atomically(path) as unfinished:
            save_file(state, unfinished, metadata={"format": "pt"})


def _names_in(path: Path) -> list[str]:
    """Names of the weights in a file; none if there is no such file."""
    if not path.is_file():
        return []
    with safe_open(path, "pt") as weights:
        return list(weights.keys())


def with_storm(config: PreTrainedConfig, storm: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of a STORM with another K, another scale or what else is given."""
    return type(config)(**{**config.to_dict(), **storm})


def load_adapted(folder: AdapterFolder, processor: ProcessorMixin, **kwargs: Any) -> StormForConditionalGeneration:
    """Load a base with its adapter for inference, through the adapter support of transformers.

    Args:
        folder ([`AdapterFolder`]):
            Folder of the adapter.
        processor ([`~transformers.ProcessorMixin`]):
            The processor that lies with it.
        kwargs:
            Passed to `from_pretrained` of the base.

    Raises:
        CheckpointError: If the base is not there, if the adapter's weights are not whole, or if the base is plain and the
            adapter does not say what STORM was made of it.
    """
    config = base_config(folder)
    if config.model_type == "storm":
        config = with_storm(config, folder.storm)
        model = StormForConditionalGeneration.from_pretrained(folder.base, config=config, **folder.place, **kwargs)
    else:
        model = StormForConditionalGeneration.from_backbone(
            folder.base,
            folder.storm["num_latents"],
            processor=processor,
            latent_projector=folder.storm["latent_projector"],
            latent_scale=folder.storm["latent_scale"],
            latent_attention=folder.storm.get("latent_attention", StormConfig.latent_attention),
            **folder.place,
            **kwargs,
        )
        model.config.storm_prompt = folder.storm.get("storm_prompt")  # a plain base has none
    magnitudes = any(name != full_name(name) for name in _names_in(folder.path / _WEIGHTS_FILE))  # saved by PEFT alone
    state = (
        {full_name(name): weight for name, weight in load_file(folder.path / _WEIGHTS_FILE).items()}
        if magnitudes
        else None
    )
    report = model.load_adapter(str(folder.path), adapter_state_dict=state)
    if wrong := sorted({*report.missing_keys, *report.unexpected_keys}):
        raise CheckpointError(
            f"The adapter in {folder.path} does not fit {folder.base}: {len(wrong)} weights are missing or superfluous, "
            f"the first is {wrong[0]}. Load it on the checkpoint that it was trained on."
        )
    return model


def base_config(folder: AdapterFolder) -> PreTrainedConfig:
    """Read the configuration of an adapter's base, plain or a STORM.

    Raises:
        CheckpointError: If the base is not there, or is plain while the adapter knows of no STORM or has no projector.
    """
    try:
        config = AutoConfig.from_pretrained(folder.base, trust_remote_code=False, **folder.place)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The adapter in {folder.path} belongs to {folder.base}, which is not there. Put it there, or write where it lies "
            "into `base_model_name_or_path` of adapter_config.json."
        ) from error
    if config.model_type != StormConfig.model_type and not folder.storm:
        raise CheckpointError(
            f"The adapter in {folder.path} belongs to {folder.base}, a {config.model_type} model, and holds no {_STORM_FILE} "
            "that says what STORM was made of it. Save adapters with the trainers of storm_hf."
        )
    names = _names_in(folder.path / _WEIGHTS_FILE)
    is_random = config.model_type != StormConfig.model_type and folder.storm.get("latent_projector") != "identity"
    if is_random and names and not any("latent_projector" in name for name in names):
        raise CheckpointError(
            f"Expected the latent projector in {folder.path / _WEIGHTS_FILE}, since {folder.base} is a plain checkpoint and has "
            "none, but only other weights are in it. Train again with `latent_projector` in `modules_to_save`."
        )
    return config
