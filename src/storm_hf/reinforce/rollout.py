"""Roll-outs of a generation batch: prompts that are encoded once for their group, latents with noise, sampled answers.

Axes: B batch, K latent steps, D hidden size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import is_peft_model
from peft import PeftModel
from transformers import GenerationConfig

from storm_hf.errors import DatasetError
from storm_hf.evaluation.batch import up_to_end
from storm_hf.inputs.conversation import is_filled
from storm_hf.inputs.prompts import PromptEncoder, Row, encode_rows, join_prompts
from storm_hf.interventions.token_replacement import choose_donors
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.reinforce.noise import GaussianLatents, LatentRecord, NoisyRollout
from storm_hf.reinforce.replay import Prompt


_HOLD_ANSWERS = ("completion", "messages")


@dataclass(frozen=True, eq=False)
class Group:
    """Completions of one prompt within a generation batch.

    Args:
        number (`int`):
            Number of the prompt in the generation batch of all processes.
        asked (`Mapping`):
            Question and answer of the row, whatever its form; see [`~storm_hf.interventions.choose_donors`].
        prompt (`Mapping[str, torch.Tensor]`):
            Model inputs of the prompt, with its whole latent block.
    """

    number: int
    asked: Row
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Roll-outs of a generation batch, row by row.

    Args:
        groups (`list[Group]`):
            Group of each row.
        donors (`list[Group | None]`):
            Group of the clip whose latents each row was fed; `None` where they are its own.
        answers (`list[list[int]]`):
            Tokens of the sampled answers, the end of the turn included.
        latents ([`LatentRecord`]):
            Latents of all rows.
    """

    groups: list[Group]
    donors: list[Group | None]
    answers: list[list[int]]
    latents: LatentRecord


@dataclass(frozen=True, eq=False)
class RolloutSampler:
    """Samples roll-outs by the model's own `generate`.

    Args:
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encodes the questions.
        policy ([`GaussianLatents`]):
            Draws the noise.
        generation_config ([`~transformers.GenerationConfig`]):
            Sampling of answers.
        end_ids (`Sequence[int]`):
            Tokens that end an answer.
        donor_asks_same (`bool`, *optional*, defaults to `False`):
            Whether a donor must have been asked the same question, so that its answer is one to follow. Where the batch has none, a
            roll-out thinks for itself.
    """

    prompts: PromptEncoder
    policy: GaussianLatents
    generation_config: GenerationConfig
    end_ids: Sequence[int]
    donor_asks_same: bool = False

    @torch.no_grad()
    def __call__(
        self,
        model: StormForConditionalGeneration,
        rows: Sequence[Row],
        numbers: Sequence[int],
        has_donor: Sequence[bool],
    ) -> Rollouts:
        """Roll out every row once.

        Args:
            model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
                The model. It is put into evaluation mode meanwhile.
            rows (`Sequence[Mapping]`):
                Rows, those of a group one after the other.
            numbers (`Sequence[int]`):
                Number of each row's group.
            has_donor (`Sequence[bool]`):
                Whether a row is fed the latents of another clip.

        Raises:
            DatasetError: If a row that needs a donor finds none with another answer.
        """
        was_training = model.training
        model.eval()  # without dropout, and without checkpointed layers, which keep no cache
        try:
            return self._sample(model, self._encode(model, rows, numbers), has_donor)
        finally:
            model.train(was_training)

    def _sample(
        self, model: StormForConditionalGeneration, groups: list[Group], has_donor: Sequence[bool]
    ) -> Rollouts:
        """Roll out the rows that think for themselves, and then those that are fed the latents of one of them."""
        thinking = [place for place, is_given in enumerate(has_donor) if not is_given]
        candidates = [groups[place] for place in thinking]
        chosen = {
            place: choose_donor(groups[place], candidates, self.donor_asks_same)
            for place, is_given in enumerate(has_donor)
            if is_given
        }
        own = [*thinking, *(place for place, donor in chosen.items() if donor is None)]
        given = {place: donor for place, donor in chosen.items() if donor is not None}
        answers, latents = self._generate(model, [groups[place] for place in own])
        if given:
            fed = latents.fed[list(given.values())]
            more, others = self._generate(model, [groups[place] for place in given], fed)
            answers, latents = [*answers, *more], LatentRecord.cat([latents, others])
        donors = [*[None] * len(own), *(candidates[donor] for donor in given.values())]
        order = np.argsort([*own, *given])
        return Rollouts(
            groups,
            [donors[place] for place in order],
            [answers[place] for place in order],
            latents[torch.from_numpy(order)],
        )

    def _encode(
        self, model: StormForConditionalGeneration, rows: Sequence[Row], numbers: Sequence[int]
    ) -> list[Group]:
        """Encode the prompt of each group once, and its clips too, unless the batch shows pictures: a model takes one or the other."""
        row_of = dict(zip(numbers, rows, strict=True))
        prompts = {number: self._encode_one(model, row) for number, row in row_of.items()}
        if not any("pixel_values" in prompt for prompt in prompts.values()):
            prompts = {number: _with_encoded_clips(model, prompt) for number, prompt in prompts.items()}
        known = {number: Group(number, self._asked(row), prompts[number]) for number, row in row_of.items()}
        return [known[number] for number in numbers]

    def _asked(self, row: Row) -> Row:
        """Question and answer of a row of any form; a row that only a judge or a function of one's own rewards needs no answer."""
        of_world = {name: row[name] for name in ("usual_question", "outcome") if is_filled(row, name)}
        answer = row["answer"] if is_filled(row, "answer") else None
        if answer is None and any(is_filled(row, name) for name in _HOLD_ANSWERS):
            answer = self.prompts.completion(row)
        return {"question": question_text(self.prompts, row), "answer": answer, **of_world}

    def _encode_one(self, model: StormForConditionalGeneration, row: Row) -> Prompt:
        return {
            name: torch.as_tensor(value).to(model.device) for name, value in encode_rows(self.prompts, [row]).items()
        }

    def _generate(
        self, model: StormForConditionalGeneration, groups: Sequence[Group], donors: torch.Tensor | None = None
    ) -> tuple[list[list[int]], LatentRecord]:
        """Think and answer; `donors` (B, K, D) are fed instead of the own latents."""
        tokenizer = self.prompts.processor.tokenizer
        inputs = join_prompts([dict(group.prompt) for group in groups], tokenizer.pad_token_id)
        rollout = NoisyRollout(self.policy, donors)
        with _without_own_settings(model):
            sequences = model.generate(
                **inputs,
                generation_config=self.generation_config,
                latent_intervention=rollout,
                halting=False,  # the record and the replay have a latent for every step
            )
        new_tokens = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        return [up_to_end(tokens, self.end_ids) for tokens in new_tokens], rollout.record


@contextmanager
def _without_own_settings(model: StormForConditionalGeneration | PeftModel) -> Iterator[None]:
    """Set aside what a checkpoint generates with: beams or forbidden words sample from another distribution than is trained.

    `generate` takes from there what a configuration that it is given leaves open.
    """
    base = model.get_base_model() if is_peft_model(model) else model
    own, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


def _with_encoded_clips(model: StormForConditionalGeneration, prompt: Prompt) -> Prompt:
    if not {"video_grid_thw", "pixel_values_videos"} <= prompt.keys():
        return prompt
    shown = {name: prompt[name] for name in ("pixel_values_videos", "video_grid_thw")}
    others = {name: value for name, value in prompt.items() if name != "pixel_values_videos"}
    return {**others, **model.encode_video(**shown)}


def question_text(prompts: PromptEncoder, row: Row) -> str:
    """Text of a row's last message before the answer, as the model reads it."""
    content = prompts.messages(row)[-1]["content"]
    return " ".join(part["text"] for part in content if part["type"] == "text")


def choose_donor(needy: Group, groups: Sequence[Group], asks_same: bool = False) -> int | None:
    """Choose whose latents a roll-out is fed, by the global random numbers.

    Args:
        needy ([`Group`]):
            Group of the roll-out.
        groups (`Sequence[Group]`):
            Groups of the roll-outs with latents of their own.
        asks_same (`bool`, *optional*, defaults to `False`):
            Whether it must have been asked the same.

    Returns:
        `int`, *optional*: Place among `groups` of one that was asked the same and has another answer. Where there is none, of any
        other, or `None` if it must have been asked the same.

    Raises:
        DatasetError: If all roll-outs are of the same group.
    """
    seed = int(torch.randint(2**31, ()))
    others = [place for place, group in enumerate(groups) if group.number != needy.number]
    if not others:
        raise DatasetError(
            "Expected roll-outs of two clips or more on each process, whose latents can be exchanged, got those of one. Raise "
            "`steps_per_generation`, or set `donor_share: 0`."
        )
    if place := int(choose_donors([needy.asked, *(group.asked for group in groups)], seed)[0]):
        return place - 1
    return None if asks_same else others[seed % len(others)]
