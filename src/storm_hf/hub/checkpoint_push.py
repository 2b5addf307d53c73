"""A checkpoint becomes a repository on the Hub: weights, processor, code, statistics and card. The same call goes on if cut off."""

import json
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from storm_hf.errors import PublicationError
from storm_hf.hub.card_metadata import check_card
from storm_hf.hub.card_results import benchmark_results, causal_use, latency
from storm_hf.hub.checkpoint_folder import CheckpointFolder, Contents
from storm_hf.hub.known_files import Preview, is_of_a_model, size_of
from storm_hf.hub.leak_checks import check_document
from storm_hf.hub.licenses import hub_license
from storm_hf.hub.model_card import CARD, FACTS, ModelFacts, model_card, read_facts
from storm_hf.hub.repository import Push, Pushed, card_file, raised_as_server_error, text_file
from storm_hf.hub.stages_picture import PICTURE, draw_stages


_UNFILLED = "More Information Needed"


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
            operations = [self.upload(repo, name, content) for name, content in contents.files.items()]
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
