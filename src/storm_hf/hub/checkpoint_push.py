"""A checkpoint becomes a repository on the Hub: weights, processor, code, statistics and card. The same call goes on if cut off."""

import json
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd

from storm_hf.errors import PublicationError
from storm_hf.hub.checkpoint_folder import CheckpointFolder
from storm_hf.hub.measured import benchmark_results, causal_use, latency
from storm_hf.hub.model_card import CARD, model_card
from storm_hf.hub.model_facts import FACTS, ModelFacts, read_facts
from storm_hf.hub.repository import Push, Pushed, text_file, told_in_one_sentence
from storm_hf.hub.stages_picture import PICTURE, draw_stages


_UNFILLED = "More Information Needed"


@dataclass(frozen=True)
class PublishedCheckpoint(Pushed):
    """A checkpoint on the Hub: what [`Pushed`] says, and its files.

    Args:
        files (`tuple[str, ...]`):
            What was published.
    """

    files: tuple[str, ...]

    @property
    def summary(self) -> list[str]:
        """What to tell people, line by line."""
        return [f"{len(self.files)} files, {self.audience}."]


@dataclass(frozen=True)
class CheckpointPush(Push):
    """Publishes a STORM, or an adapter of one.

    The card is rendered from `storm_card.json`, which trainers write, with the name of the repository and what was measured. A
    `README.md` that was edited by hand is published as it is.

    Args:
        folder (`Path`):
            What a trainer wrote, or `save_pretrained` of model and processor. What else it takes is told in [`Push`].
        diagnosis (`Path`, *optional*):
            The `diagnosis.json` of `storm diagnose`, whose table the card shows.
        evaluation (`Path`, *optional*):
            The `report.json` of `storm evaluate`, whose results of the arm `storm` the card names, and what an answer costs
            in each arm.
        facts ([`ModelFacts`], *optional*):
            What the card says. By default what lies in the folder.

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

    @cached_property
    def checkpoint(self) -> CheckpointFolder:
        """The checkpoint on this machine."""
        return CheckpointFolder.open(self.folder)

    @property
    def subject(self) -> str:
        """What is published, in a few words."""
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
        contents = self.checkpoint.contents()
        if self._card_by_hand is None:
            contents[PICTURE] = draw_stages(self._facts_of(self.repo).num_latents)
        self._card(self.repo)  # refused before anything is sent, if it is refused
        with told_in_one_sentence(self.repo):
            repo = self.open_repository()
            operations = [self.upload(repo, name, content) for name, content in contents.items()]
            operations += self._card(repo)
            commit = self.commit(repo, operations, "Publish a STORM", _is_of_a_checkpoint)
        return PublishedCheckpoint(repo, commit, self.public, tuple(each.path_in_repo for each in operations))

    def _facts_of(self, repo: str) -> ModelFacts:
        facts = replace(self.facts or read_facts(self.folder) or self.checkpoint.facts(repo), name=repo)
        if self.diagnosis is not None:
            facts = replace(
                facts, causal_use=causal_use(_read_measured(self.diagnosis, "diagnose", ("verdict", "effects")))
            )
        if self.evaluation is not None:
            report = _read_measured(self.evaluation, "evaluate", ("results", "costs"))
            facts = replace(facts, results=benchmark_results(report), latency=latency(report))
        return facts

    def _card(self, repo: str) -> list[CommitOperationAdd]:
        if self._card_by_hand is not None:
            return [text_file(CARD, self._card_by_hand)]
        facts = self._facts_of(repo)
        return [text_file(CARD, str(model_card(facts))), text_file(FACTS, facts.to_json())]

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


def _is_of_a_checkpoint(name: str) -> bool:
    return name.endswith(("safetensors", "safetensors.index.json", "_storm.py"))
