"""Many questions about a clip, which is decoded, encoded and read once."""

from collections import defaultdict
from collections.abc import Sequence

from transformers import ProcessorMixin

from storm_hf.evaluation.batch import Answer, answer_questions
from storm_hf.evaluation.clip_prefix import ClipPrefixes
from storm_hf.evaluation.single import MAX_NEW_TOKENS, ClipQuestion, latents_to_replace, question_encoder
from storm_hf.inputs.seen_clips import prepared_once
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import OF_ONE_QUESTION, InterventionKind, read_kind
from storm_hf.model.modeling_storm import StormForConditionalGeneration


class StormSession:
    """A model that keeps what it has read of a clip for further questions about it.

    The answers are those of [`~storm_hf.evaluation.ask`] and [`~storm_hf.evaluation.ask_with_replaced_latents`], their logits to the
    accuracy of floating point: each question has its own rollout, on a copy of the clip's key-value cache. One thread at a time.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model, which is put into evaluation mode. Its weights must not change.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        max_clips (`int`, *optional*, defaults to `1`):
            Clips that are kept, those asked about last.

    Example:
        ```python
        session = StormSession(model, processor)
        answers = session.ask_all([ClipQuestion(clip, text) for text in ("Who enters?", "Who leaves?")])
        ```
    """

    def __init__(self, model: StormForConditionalGeneration, processor: ProcessorMixin, *, max_clips: int = 1) -> None:
        self.model, self.processor = model.eval(), prepared_once(processor)
        self.prefixes = ClipPrefixes(model, max_clips)

    def read(self, question: ClipQuestion) -> None:
        """Read the clip of a question, unless it is kept: what is asked about it next costs the question alone.

        Args:
            question ([`ClipQuestion`]):
                Any question about it.

        Raises:
            PromptError: If the clip does not fit the model.
        """
        self.prefixes.read(question_encoder(self.model, self.processor, None)([question.row()]))

    def ask(
        self,
        question: ClipQuestion,
        *,
        num_latents: int | None = None,
        halting: bool | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Answer:
        """Answer a question about a clip, greedily. Arguments and errors are those of [`ask`]."""
        return self.ask_all([question], num_latents=num_latents, halting=halting, max_new_tokens=max_new_tokens)[0]

    def ask_all(
        self,
        questions: Sequence[ClipQuestion],
        *,
        num_latents: int | None = None,
        halting: bool | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 8,
    ) -> list[Answer]:
        """Answer questions about any number of clips, those about one clip together.

        Args:
            questions (`Sequence[ClipQuestion]`):
                The questions. Those with the same clip object are about one clip.
            num_latents (`int`, *optional*):
                Number K of latent steps, by default the model's; `0` answers without thinking.
            halting (`bool`, *optional*):
                Whether each thought ends when the model's halting head says so; see [`ask`].
            max_new_tokens (`int`, *optional*, defaults to `64`):
                Longest answer.
            batch_size (`int`, *optional*, defaults to `8`):
                Most questions that are answered together; each needs a copy of what is kept of the clip.

        Returns:
            `list[Answer]`: In the order of the questions.

        Raises:
            PromptError: If a clip and its question do not fit the model.
            LatentError: If the model cannot think for so many steps.
        """
        prompts = question_encoder(self.model, self.processor, num_latents)
        answer_of: dict[int, Answer] = {}
        for places in _by_clip(questions):
            rows = [questions[place].row() for place in places]
            found = answer_questions(
                self.model,
                prompts,
                rows,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                halting=halting,
                prefixes=self.prefixes,
            )
            answer_of.update(zip(places, found, strict=True))
        return [answer_of[place] for place in range(len(questions))]

    def ask_with_replaced_latents(
        self,
        question: ClipQuestion,
        own: Answer,
        kind: InterventionKind | str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Answer:
        """Ask again under an intervention on the latents; `latents_only` reads the prompt anew, with its clip and without.

        Arguments and errors are those of [`ask_with_replaced_latents`].
        """
        latents = latents_to_replace(own)
        intervention = make_intervention(read_kind(kind, OF_ONE_QUESTION), latents[None])
        return self.ask_under(intervention, question, len(latents), max_new_tokens=max_new_tokens)

    def ask_under(
        self,
        intervention: Intervention,
        question: ClipQuestion,
        num_latents: int,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Answer:
        """Ask under an intervention that was made for this question.

        Args:
            intervention ([`~storm_hf.interventions.intervention.Intervention`]):
                Intervention on the latents of one question.
            question ([`ClipQuestion`]):
                Question to ask.
            num_latents (`int`):
                Number K of latent steps.
            max_new_tokens (`int`, *optional*, defaults to `64`):
                Longest answer.
        """
        prompts = question_encoder(self.model, self.processor, num_latents)
        return answer_questions(
            self.model,
            prompts,
            [question.row()],
            max_new_tokens=max_new_tokens,
            intervene=intervention,
            prefixes=self.prefixes,
        )[0]


def _by_clip(questions: Sequence[ClipQuestion]) -> list[list[int]]:
    """Positions of the questions about each clip."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        places[id(question.clip)].append(place)
    return list(places.values())
