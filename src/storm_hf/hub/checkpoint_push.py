"""A checkpoint becomes a repository on the Hub: weights, processor, code, statistics and card. The same call goes on if cut off.

[`CheckpointFolder`] says what of a folder, whole model or adapter, is published, and cleans and completes it.
"""

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig
from transformers.dynamic_module_utils import get_relative_import_files

from storm_hf.atomic import read_json
from storm_hf.errors import CheckpointError, DatasetError, PublicationError
from storm_hf.hub.card_metadata import check_card, is_hub_name, worlds_only
from storm_hf.hub.card_results import benchmark_results, causal_use, latency
from storm_hf.hub.contents import check_file
from storm_hf.hub.known_files import Preview, is_of_a_model, select_model_files, size_of
from storm_hf.hub.leak_checks import check_document, check_json, check_published
from storm_hf.hub.licenses import hub_license
from storm_hf.hub.model_card import CARD, FACTS, ModelFacts, model_card, read_facts
from storm_hf.hub.repository import Push, Pushed, card_file, raised_as_server_error, text_file
from storm_hf.hub.stages_picture import PICTURE, draw_stages
from storm_hf.model import StormConfig, modeling_storm


_UNFILLED = "More Information Needed"
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
        return _read_mapping(self.path / name)

    def check_weights(self) -> None:
        """Make sure that every file of weights is there.

        Raises:
            CheckpointError: If one is missing.
        """
        index = self.path / "model.safetensors.index.json"
        if self.is_adapter:
            names = ["adapter_model.safetensors"]
        elif index.is_file():
            names = sorted(set(_read_mapping(index)["weight_map"].values()))
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
        content = _without_origins(_read_mapping(path))
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
        base = _read_mapping(self.path / _ADAPTER_CONFIG).get(_BASE) if self.is_adapter else None
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


def _read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        content = read_json(path)
    except DatasetError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected settings by their names in {path} but it holds {str(content)[:40]}.")
    return content


def _without_origins(content: object) -> Any:
    if isinstance(content, dict):
        return {name: _without_origins(value) for name, value in content.items() if name not in _ORIGINS}
    return [_without_origins(value) for value in content] if isinstance(content, list) else content


@dataclass(frozen=True)
class PublishedCheckpoint(Pushed):
    """A published checkpoint: the fields of [`Pushed`], and its files.

    Args:
        files (`tuple[str, ...]`):
            Published files.
        notes (`tuple[str, ...]`, *optional*):
            Missing parts of the card, one sentence each.
    """

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> list[str]:
        """Summary for people, line by line."""
        return [*self.lines_on_left_out, *self.notes, f"{len(self.files)} files, {self.audience}."]


@dataclass(frozen=True)
class CheckpointPush(Push):
    """Publishes a STORM, or an adapter of one.

    The card is rendered from `storm_card.json`, which trainers write, with the name of the repository and what was measured. A
    `README.md` that was edited by hand is published as it is.

    Args:
        folder (`Path`):
            Folder of a trainer, or of `save_pretrained` of model and processor. For the other arguments see [`Push`].
        diagnosis (`Path`, *optional*):
            The `diagnosis.json` of `storm diagnose`, whose table the card shows.
        evaluation (`Path`, *optional*):
            The `report.json` of `storm evaluate`, whose results of the variant `storm` the card names, and what an answer costs
            in each variant.
        facts ([`ModelFacts`], *optional*):
            Facts of the card. By default those found in the folder.
        license (`str`, *optional*):
            Licence of the weights. By default that of the facts.
        message (`str`, *optional*, defaults to `"Publish a STORM"`):
            Title of the commit.

    Example:
        ```python
        CheckpointPush(Path("runs/answer"), "me/storm").run()
        ```
    """

    kind = "model"

    _: KW_ONLY
    diagnosis: Path | None = None
    evaluation: Path | None = None
    facts: ModelFacts | None = None
    license: str | None = None
    message: str = "Publish a STORM"

    @cached_property
    def checkpoint(self) -> CheckpointFolder:
        """The checkpoint on this machine."""
        return CheckpointFolder.open(self.folder)

    @property
    def subject(self) -> str:
        """Short description of the publication."""
        kind = "adapter" if self.checkpoint.is_adapter else "model"
        return f"the {kind} in {self.folder}"

    def run(self) -> PublishedCheckpoint:
        """Upload what the server does not have, and commit.

        Returns:
            [`PublishedCheckpoint`]: What became of it.

        Raises:
            CheckpointError: If the folder holds no complete checkpoint.
            PublicationError: If it holds something that must not be published, everybody would see it unasked, or a report of
                what was measured cannot be read.
            ServerError: If the upload was cut off; the same call goes on.
        """
        contents = self._contents
        self._described(self.repo)  # refused before anything is sent, if it is refused
        with raised_as_server_error(self):
            repo = self.open_repository()
            described = self._described(repo)
            self.check_card(described[CARD])
            earlier = self._files_of_earlier_push(repo)
            operations = self.upload(repo, contents.files)
            operations += [card_file(described.pop(CARD), self.kind)]
            operations += [text_file(name, text) for name, text in described.items()]
            commit = self.commit(repo, operations, self.message, lambda name: name in earlier or is_of_a_model(name))
        names = tuple(each.path_in_repo for each in operations)
        return PublishedCheckpoint(repo, commit, bool(self.public), names, self._notes, left_out=contents.left_out)

    def dry_run(self) -> Preview:
        """List what would be published. Needs no token and no network, and writes nothing.

        Raises:
            CheckpointError: If the folder holds no complete checkpoint.
            PublicationError: If it holds something that must not be published.
        """
        described = self._described(self.repo)
        files = {**self._contents.files, **described}
        sizes = tuple(sorted((name, size_of(content)) for name, content in files.items()))
        return Preview(self.repo, described[CARD], sizes, self._contents.left_out, self._notes)

    @cached_property
    def _contents(self) -> Contents:
        contents = self.checkpoint.contents(self.include)
        if self._card_by_hand is not None:
            return contents
        return replace(contents, files={**contents.files, PICTURE: draw_stages(self._facts_of(self.repo).num_latents)})

    def _files_of_earlier_push(self, repo: str) -> set[str]:
        """Names of the files that the push before published, by its list."""
        try:
            facts = json.loads(self.read(repo, FACTS) or "{}")
        except ValueError:
            return set()
        files = facts.get("files") if isinstance(facts, dict) else None
        return {name for name in files or () if isinstance(name, str)}

    def _facts_of(self, repo: str) -> ModelFacts:
        facts = replace(self.facts or read_facts(self.folder) or self.checkpoint.facts(repo), name=repo)
        if self.license is not None:
            named = hub_license(self.license)
            facts = replace(facts, license=named["license"], license_name=named.get("license_name"))
        if self.diagnosis is not None:
            facts = replace(
                facts, causal_use=causal_use(_read_measured(self.diagnosis, "diagnose", ("verdict", "effects")))
            )
        if self.evaluation is not None:
            report = _read_measured(self.evaluation, "evaluate", ("results", "costs"))
            facts = replace(facts, results=benchmark_results(report), latency=latency(report))
        return facts

    def _described(self, repo: str) -> dict[str, str]:
        """The card, and the facts that it was rendered from with the list of all files: by it, the next push removes what it does
        not send again.
        """
        facts = self._facts_of(repo)
        card = self._card_by_hand or str(model_card(facts))
        facts = replace(facts, files=tuple(sorted({*self._contents.files, CARD, FACTS})))
        check_card(card, self.kind)
        described = {CARD: card, FACTS: facts.to_json()}
        for name, text in described.items():
            check_document(text, name)
        return described

    @property
    def _notes(self) -> tuple[str, ...]:
        if self._card_by_hand is not None or self._facts_of(self.repo).license is not None:
            return ()
        return ("The card names no licence. Name one with --license, such as apache-2.0.",)

    @cached_property
    def _card_by_hand(self) -> str | None:
        """The `README.md` of the folder, if it is neither what our trainers wrote nor the form that PEFT leaves to be filled."""
        file = self.folder / CARD
        if not file.is_file() or self.facts is not None:
            return None
        text, facts = file.read_text(encoding="utf-8"), read_facts(self.folder)
        is_ours = facts is not None and text == str(model_card(facts))
        return None if is_ours or _UNFILLED in text else text


def _read_measured(file: Path, writer: str, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        measured = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PublicationError(
            f"Expected what `storm {writer}` wrote but cannot read {file}: {error}. Name its .json file."
        ) from error
    if not isinstance(measured, dict) or not set(keys) <= set(measured):
        raise PublicationError(
            f"Expected what `storm {writer}` wrote but {file} has no {' and no '.join(keys)}. Name its .json file."
        )
    return measured
