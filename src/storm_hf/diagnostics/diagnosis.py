"""`storm diagnose` as a function: the use of the latents by the answer, and their content.

Axes: N questions, K latent steps, D hidden size.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import ProcessorMixin

from storm_hf.diagnostics.geometry import (
    LayerAttention,
    StepProbe,
    describe_drift,
    describe_geometry,
    describe_retrieval,
    measure_attention,
    probe_states,
)
from storm_hf.diagnostics.halting import HaltedThoughts, describe_halting
from storm_hf.diagnostics.intervention_effects import AnswerTable, CounterfactualEffect, DonorQuestionEffect
from storm_hf.diagnostics.questions import Questions
from storm_hf.diagnostics.record import Diagnosis
from storm_hf.diagnostics.replay import Reply, answer_again
from storm_hf.diagnostics.verdict import judge
from storm_hf.errors import BackboneError, ConfigurationError
from storm_hf.evaluation.batch import answer_questions
from storm_hf.inputs.prompts import CACHED_PROMPT, PromptEncoder, Row
from storm_hf.inputs.wording import ASKED_COLUMNS
from storm_hf.interventions.intervention import Intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.interventions.token_replacement import (
    choose_donors,
    shuffle_donors,
    step_replacements,
    token_replacements,
    usual_wording,
)
from storm_hf.model.modeling_storm import StormForConditionalGeneration


_NUM_ATTENDED = 64
_OF_THE_QUESTION = ("question", "options", "answer", *ASKED_COLUMNS)
_NAMES = ("model", "dataset", "split", "command")


def diagnose(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    questions: Questions,
    *,
    max_new_tokens: int = 8,
    batch_size: int = 128,
    seed: int = 0,
    names: Mapping[str, str] | None = None,
    report: Callable[[int], None] | None = None,
) -> Diagnosis:
    """Answer the questions with the model's own latents and with every replacement, and look at the latents.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        questions ([`Questions`]):
            Questions to the model; see `read_questions`.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Longest answer.
        batch_size (`int`, *optional*, defaults to `128`):
            Questions that are answered together.
        seed (`int`, *optional*, defaults to `0`):
            Of donors, noise, split and bootstrap.
        names (`Mapping[str, str]`, *optional*):
            `model`, `dataset`, `split` and `command`, as in the record.
        report (`Callable[[int], None]`, *optional*):
            Called with the number of questions done; each is done twice.

    Raises:
        ConfigurationError: If the model thinks in no latents, or there are fewer than two questions.
    """
    started = time.perf_counter()
    _check(model.config.num_latents, questions)
    asking = _Asking(model, processor, questions, max_new_tokens, batch_size, report)
    latents, donors = asking.latents(), choose_donors(questions.rows, seed)
    replaced = token_replacements(latents, donors, questions.targets, seed)
    edited = step_replacements(latents, donors)
    replies = asking.again(questions.rows, replaced | edited)
    table = AnswerTable(questions.rows, replies[InterventionKind.own], questions.clips, seed)
    effects = {name: table.effect(intervention, replies[name]) for name, intervention in replaced.items()}
    curves = {name: table.effect(intervention, replies[name]) for name, intervention in edited.items()}
    absent = dict(questions.absent)
    return Diagnosis(
        **_conditions(questions, names or {}),
        seed=seed,
        num_latents=latents.shape[1],
        verdict=judge(effects, questions.chance, len(set(questions.clips))),
        effects=effects,
        only_step=[curves[f"only_{step}"] for step in range(latents.shape[1])],
        from_step=[curves[f"from_{step}"] for step in range(latents.shape[1])],
        donor_question=asking.with_donors_question(latents, absent, seed),
        counterfactuals=_counterfactuals(table, questions, donors, replies),
        **_content(questions, latents, replies, absent, seed),
        attention=asking.attention(absent),
        num_attended=min(_NUM_ATTENDED, len(questions.rows)),
        halting=asking.halting(),
        absent=absent,
        seconds=time.perf_counter() - started,
    )


def _conditions(questions: Questions, names: Mapping[str, str]) -> dict[str, Any]:
    """Conditions of a diagnosis, by their names in the record."""
    num_clips = len(set(questions.clips))
    numbers = {"num_questions": len(questions.rows), "num_clips": num_clips, "chance": questions.chance}
    return {**{name: names.get(name, "") for name in _NAMES}, **numbers}


@dataclass(frozen=True, eq=False)
class _Asking:
    """A model, and how it is asked."""

    model: StormForConditionalGeneration
    processor: ProcessorMixin
    questions: Questions
    max_new_tokens: int
    batch_size: int
    report: Callable[[int], None] | None

    @property
    def prompts(self) -> PromptEncoder:
        return PromptEncoder(self.processor, self.model.config, self.model.config.num_latents)

    def latents(self) -> np.ndarray:
        """The model's own latents, (N, K, D)."""
        answers = answer_questions(
            self.model,
            self.prompts,
            self.questions.rows,
            max_new_tokens=1,
            batch_size=self.batch_size,
            on_batch=self.report,
        )
        return np.stack([np.asarray(answer.latents) for answer in answers])

    def halting(self) -> HaltedThoughts | None:
        """Thoughts that end by themselves, if the model has learned where."""
        if not self.model.config.halting_head:
            return None
        rows = self.questions.rows
        answers = answer_questions(
            self.model,
            self.prompts,
            rows,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            halting=True,
        )
        return describe_halting(answers, rows)

    def again(self, rows: Sequence[Row], interventions: Mapping[str, Intervention]) -> dict[str, list[Reply]]:
        """Answer under each intervention."""
        return answer_again(
            self.model,
            self.prompts,
            rows,
            interventions,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            on_batch=self.report,
        )

    def with_donors_question(
        self, latents: np.ndarray, absent: dict[str, str], seed: int
    ) -> DonorQuestionEffect | None:
        """Ask about each clip what was asked about another one, with that one's latents."""
        rows = self.questions.rows
        donors = shuffle_donors(len(rows), seed)
        questions = [usual_wording(row)[0] for row in rows]
        asked = [index for index, donor in enumerate(donors) if questions[index] != questions[donor]]
        if not asked:
            absent["donor_question"] = "All questions are worded alike, so it is the same as keeping the own question."
            return None
        mixed = [_with_question_of(rows[index], rows[donors[index]]) for index in asked]
        fed = Intervention(InterventionKind.shuffled, latents[donors[asked]])
        replies = self.again(mixed, {"own": Intervention(), "donor": fed})
        clips = [self.questions.clips[index] for index in asked]
        return DonorQuestionEffect.of(mixed, replies["own"], replies["donor"], clips, seed)

    def attention(self, absent: dict[str, str]) -> list[LayerAttention] | None:
        """Attention of the answer, on a few questions."""
        try:
            return measure_attention(self.model, self.prompts, self.questions.rows[:_NUM_ATTENDED])
        except BackboneError as error:
            absent["attention"] = str(error)
            return None


def _check(num_latents: int, questions: Questions) -> None:
    if num_latents < 1 or len(questions.rows) < 2:
        raise ConfigurationError(
            f"Expected a model that thinks in latents and two questions or more, got num_latents={num_latents} and "
            f"{len(questions.rows)} questions."
        )


def _with_question_of(row: Row, donor: Row) -> Row:
    """The clip of one row with question, options and answer of another."""
    if CACHED_PROMPT in row:
        row = {name: value for name, value in row.items() if not name.startswith(("prompt_", "video_"))}
    return {**row, **{name: donor[name] for name in _OF_THE_QUESTION if name in donor}}


def _counterfactuals(
    table: AnswerTable, questions: Questions, donors: np.ndarray, replies: Mapping[str, list[Reply]]
) -> list[CounterfactualEffect] | None:
    """Edits of every step but the last, after which there is nothing to follow."""
    world, states = questions.world, questions.states
    if world is None or states is None:
        return None
    edits = (
        table.counterfactual(world, states, step, donors, replies[f"only_{step}"])
        for step in range(states.shape[1] - 1)
    )
    return [edit for edit in edits if edit is not None]


def _content(
    questions: Questions, latents: np.ndarray, replies: Mapping[str, list[Reply]], absent: dict[str, str], seed: int
) -> dict[str, Any]:
    """Measures of what the latents hold, by their names in the record. Some need the true thoughts, and are `None` without.

    `oracle` fed the true thoughts, so its latents are those of teacher forcing.
    """
    measures: dict[str, Any] = {
        "geometry": describe_geometry(latents),
        "probes": _probes(questions, latents, absent, seed),
        **dict.fromkeys(("retrieval", "target_geometry", "drift")),
    }
    targets = questions.targets
    if targets is not None:
        fed = np.stack([np.asarray(reply.answer.latents) for reply in replies[InterventionKind.oracle]])
        measures["retrieval"] = describe_retrieval(latents, targets, questions.states)
        measures["target_geometry"] = describe_geometry(targets)
        measures["drift"] = describe_drift(latents, fed, targets)
    return measures


def _probes(questions: Questions, latents: np.ndarray, absent: dict[str, str], seed: int) -> list[StepProbe] | None:
    if questions.states is None:
        return None
    probes = probe_states(latents, questions.states, questions.clips, seed)
    if not probes:
        absent["probes"] = "A probe needs ten clips or more, to be fitted on some and tested on others."
    return probes or None
