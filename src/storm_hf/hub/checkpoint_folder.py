"""The folder of a checkpoint, whole model or adapter: what of it is published, cleaned and completed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig
from transformers.dynamic_module_utils import get_relative_import_files

from storm_hf.atomic import read_json
from storm_hf.errors import CheckpointError, PublicationError
from storm_hf.hub.card_metadata import is_hub_name, worlds_only
from storm_hf.hub.contents import check_file
from storm_hf.hub.known_files import select_model_files
from storm_hf.hub.leak_checks import check_json, check_published
from storm_hf.hub.model_card import CARD, FACTS, ModelFacts
from storm_hf.model import StormConfig, modeling_storm


_CONFIG, _ADAPTER_CONFIG, _STORM_CONFIG = "config.json", "adapter_config.json", "storm_config.json"
_GENERATION = "generation_config.json"
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_BASE = "base_model_name_or_path"
_ORIGINS = {"_name_or_path", "name_or_path"}  # where something was loaded from: not needed, and private


@dataclass(frozen=True)
class Contents:
    """Files of a checkpoint that are published, and those that are left out.

    Args:
        files (`dict[str, Path | bytes]`):
            From the path in the repository to the file, or its bytes.
        left_out (`tuple[str, ...]`):
            Files of the folder that are of no known kind.
    """

    files: dict[str, Path | bytes]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointFolder:
    """Local checkpoint that is complete enough to publish.

    Args:
        path (`Path`):
            Folder written by `save_pretrained` of model and processor, or by a trainer.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> "CheckpointFolder":
        """Make sure that a folder holds a STORM, or an adapter of one, with weights and a processor.

        Raises:
            CheckpointError: If it holds something else, or lacks one of them; the message says what to do.
        """
        folder = cls(path.resolve())
        if not folder.is_adapter and (kind := folder.config.get("model_type")) != StormConfig.model_type:
            raise CheckpointError(
                f"Expected the folder of a STORM but {path} holds a {kind} model. Make one of it with "
                "`StormForConditionalGeneration.from_backbone`, and train it."
            )
        folder.check_weights()
        if not any((path / name).is_file() for name in _PROCESSORS):
            raise CheckpointError(
                f"Expected the processor beside the model in {path}, since a model cannot be asked without one, but it is "
                "not there. Write it there with `processor.save_pretrained`."
            )
        return folder

    @property
    def is_adapter(self) -> bool:
        """True if it holds an adapter and no whole model."""
        return not (self.path / _CONFIG).is_file() and (self.path / _ADAPTER_CONFIG).is_file()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the model; of an adapter, what STORM adds to its base."""
        name = _STORM_CONFIG if self.is_adapter else _CONFIG
        if not (self.path / name).is_file():
            raise CheckpointError(
                f"Expected a {name} in {self.path} but there is none. Save it with storm_hf's trainers."
            )
        return read_json(self.path / name)

    def check_weights(self) -> None:
        """Make sure that every file of weights is there.

        Raises:
            CheckpointError: If one is missing.
        """
        index = self.path / "model.safetensors.index.json"
        if self.is_adapter:
            names = ["adapter_model.safetensors"]
        elif index.is_file():
            names = sorted(set(read_json(index)["weight_map"].values()))
        else:
            names = ["model.safetensors"]
        if missing := [name for name in names if not (self.path / name).is_file()]:
            raise CheckpointError(
                f"Expected the weights {missing[0]} in {self.path} but they are not there. Save the model again with "
                "`save_pretrained`."
            )

    def contents(self, include: Sequence[str] = ()) -> "Contents":
        """Collect what is published, without the card.

        Args:
            include (`Sequence[str]`, *optional*):
                Patterns of files that are published although they are of no known kind.

        Raises:
            PublicationError: If it holds a pickle, a credential, or a path of this machine.
        """
        selection = select_model_files(self.path, include)
        files: dict[str, Path | bytes] = {}
        for name, path in selection.published.items():
            if name.endswith("config.json"):
                check_file(path, name)
                files[name] = self._cleaned(path, name)
            elif name not in (CARD, FACTS):
                check_published(path, name)
                files[name] = path
        if not self.is_adapter:
            files = {**_own_code(files), **files}
            files.setdefault(_GENERATION, self._generation_config())
        return Contents(files, selection.left_out)

    def _cleaned(self, path: Path, name: str) -> bytes:
        content = _without_origins(read_json(path))
        if name == _CONFIG:
            named = content.get("auto_map") or StormConfig().auto_map
            content["auto_map"] = {auto: place.rpartition("--")[2] for auto, place in named.items()}
        if name == _ADAPTER_CONFIG and not is_hub_name(base := content.get(_BASE)):
            raise PublicationError(
                f"Expected the base of the adapter to have a name on the Hub but {name} says {base!r}. Publish the base "
                f"first, and write its name into `{_BASE}`."
            )
        check_json(content, name)
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

    def _generation_config(self) -> bytes:
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(self.path, trust_remote_code=False))
        return config.to_json_string().encode()

    def facts(self, name: str) -> ModelFacts:
        """Facts read from the folder of a checkpoint that no trainer of ours has described."""
        backbone = self.config.get("vlm_config", {}).get("model_type", "video-language")
        base = read_json(self.path / _ADAPTER_CONFIG).get(_BASE) if self.is_adapter else None
        return ModelFacts(
            name=name,
            stage="base",
            backbone=backbone,
            num_latents=self.config["num_latents"],
            latent_attention=self.config.get("latent_attention", StormConfig.latent_attention),
            thought_rank=(self.config.get("thought_adapter") or {}).get("r"),
            prompt=self.config.get("storm_prompt"),
            num_parameters=self._num_parameters(),
            is_adapter=self.is_adapter,
            base_model=base if is_hub_name(base) else None,
            worlds=worlds_only(self.config.get("trained_on")),
        )

    def _num_parameters(self) -> int:
        total = 0
        for file in self.path.glob("adapter_model.safetensors" if self.is_adapter else "model*.safetensors"):
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - an open file is no mapping
                    size = 1
                    for length in weights.get_slice(name).get_shape():
                        size *= length
                    total += size
        return total


def _own_code(contents: dict[str, Path | bytes]) -> dict[str, Path | bytes]:
    """The code of this package, where a checkpoint carries none."""
    if "modeling_storm.py" in contents:
        return {}
    modeling = Path(modeling_storm.__file__)
    return {Path(file).name: Path(file) for file in [modeling, *get_relative_import_files(modeling)]}


def _without_origins(content: object) -> Any:
    if isinstance(content, dict):
        return {name: _without_origins(value) for name, value in content.items() if name not in _ORIGINS}
    return [_without_origins(value) for value in content] if isinstance(content, list) else content
