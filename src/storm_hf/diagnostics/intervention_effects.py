"""Effect of each intervention on the answers, with intervals over clips.

Axes: N questions, K latent steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storm_hf.diagnostics.replay import Reply
from storm_hf.evaluation.batch import Answer, expected_choice
from storm_hf.evaluation.bootstrap import Draws, Interval, mean_interval, paired_difference, share_interval
from storm_hf.inputs.conversation import read_choices, read_options
from storm_hf.inputs.prompts import Row
from storm_hf.interventions.intervention import Intervention
from storm_hf.interventions.token_replacement import usual_wording
from storm_hf.worlds.world import World


NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class Effect:
    """Effect of one intervention on the answers.

    Args:
        label (`str`):
            Name of the intervention.
        accuracy ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share of correct answers.
        lost ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Accuracy with the model's own latents minus this one, question by question.
        changed ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share of answers that become other ones.
        divergence ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Mean KL divergence in nats from what the model says by itself; see [`Reply`].
        unreadable (`float`):
            Share of answers that name none of the options; 0 for open questions.
        follows_donor ([`~storm_hf.evaluation.bootstrap.Interval`], *optional*):
            For donors with the same question and another correct answer: share of answers that become the donor's.
        steered ([`~storm_hf.evaluation.bootstrap.Interval`], *optional*):
            The same minus how often the model gave the donor's answer already without its latents. A model that ignores its
            latents has 0 here, whatever it answers.
        num_donors (`int`):
            Questions that have such a donor.
    """

    label: str
    accuracy: Interval
    lost: Interval
    changed: Interval
    divergence: Interval
    unreadable: float = 0.0
    follows_donor: Interval | None = None
    steered: Interval | None = None
    num_donors: int = 0


@dataclass(frozen=True)
class CounterfactualEffect:
    """Effect of another clip's latent at one step, after which the model continues its own rollout.

    Args:
        step (`int`):
            The edited step, counted from 1.
        follows ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share of answers that become what the simulator says would have followed, of the questions where that is another
            answer than the correct one.
        keeps ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share that stay correct for the clip as it was, of the same questions.
        num_questions (`int`):
            Number of questions.
    """

    step: int
    follows: Interval
    keeps: Interval
    num_questions: int


@dataclass(frozen=True)
class DonorQuestionEffect:
    """Effect of asking another clip's question, with that clip's latents.

    Args:
        follows ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share of answers that are the correct ones of the other clip.
        steered ([`~storm_hf.evaluation.bootstrap.Interval`]):
            The same minus how often that question gets this answer with the latents of the clip at hand.
        num_questions (`int`):
            Questions whose donor is asked something else.
    """

    follows: Interval
    steered: Interval
    num_questions: int

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        own: Sequence[Reply],
        with_donors: Sequence[Reply],
        clips: Sequence[str],
        seed: int = 0,
    ) -> "DonorQuestionEffect":
        """Compare replies to `rows`, whose answers are the donors', with the clip's own latents and the donor's."""
        draws = Draws(clusters=clips, num_resamples=NUM_RESAMPLES, seed=seed)
        before = [is_correct(reply.answer, row) for reply, row in zip(own, rows, strict=True)]
        after = [is_correct(reply.answer, row) for reply, row in zip(with_donors, rows, strict=True)]
        steered = paired_difference(after, before, **draws)
        return cls(share_interval(after, **draws), steered, len(rows))


@dataclass(frozen=True, eq=False)
class AnswerTable:
    """Rows, what the model says to them by itself, and the clips that they are about.

    Args:
        rows (`Sequence`):
            The questions.
        own (`Sequence`):
            A reply to each.
        clips (`Sequence[str]`):
            The clip of each.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap.
    """

    rows: Sequence[Row]
    own: Sequence[Reply]
    clips: Sequence[str]
    seed: int = 0

    def effect(self, intervention: Intervention, replies: Sequence[Reply]) -> Effect:
        """Compare the replies under an intervention with the model's own."""
        draws = Draws(clusters=self.clips, num_resamples=NUM_RESAMPLES, seed=self.seed)
        before = np.array([is_correct(reply.answer, row) for reply, row in zip(self.own, self.rows, strict=True)])
        after = np.array([is_correct(reply.answer, row) for reply, row in zip(replies, self.rows, strict=True)])
        changed = [_said(reply.answer) != _said(own.answer) for reply, own in zip(replies, self.own, strict=True)]
        follows, steered, num_donors = self._follow(intervention.donors, replies)
        return Effect(
            label=intervention.label,
            accuracy=share_interval(after, **draws),
            lost=Interval(0.0, 0.0, 0.0) if replies is self.own else paired_difference(before, after, **draws),
            changed=share_interval(changed, **draws),
            divergence=mean_interval([reply.divergence for reply in replies], **draws),
            unreadable=float(
                np.mean([_is_unreadable(reply.answer, row) for reply, row in zip(replies, self.rows, strict=True)])
            ),
            follows_donor=follows,
            steered=steered,
            num_donors=num_donors,
        )

    def _follow(
        self, donors: np.ndarray | None, replies: Sequence[Reply]
    ) -> tuple[Interval | None, Interval | None, int]:
        """Share of answers that are the donor's, its increase over the model's own, and their number."""
        if donors is None:
            return None, None, 0
        asked, outcomes = zip(*map(usual_wording, self.rows), strict=True)
        answers = [_normalised(outcome) for outcome in outcomes]
        others = [
            index
            for index, donor in enumerate(donors)
            if answers[index] != answers[donor] and asked[index] == asked[donor]
        ]
        if not others:
            return None, None, 0
        clips = [self.clips[index] for index in others]
        draws = Draws(clusters=clips, num_resamples=NUM_RESAMPLES, seed=self.seed)
        after = [is_correct(replies[index].answer, self.rows[donors[index]]) for index in others]
        before = [is_correct(self.own[index].answer, self.rows[donors[index]]) for index in others]
        steered = paired_difference(after, before, **draws)
        return share_interval(after, **draws), steered, len(others)

    def counterfactual(
        self, world: World, states: np.ndarray, step: int, donors: np.ndarray, replies: Sequence[Reply]
    ) -> CounterfactualEffect | None:
        """Compare the replies to an edit of one step with what the simulator says would have followed.

        Args:
            world ([`~storm_hf.worlds.World`]):
                The simulator of these questions.
            states (`np.ndarray` of shape `(num_questions, num_latents)`):
                State after each step.
            step (`int`):
                The edited step, counted from 0.
            donors (`np.ndarray` of shape `(num_questions,)`):
                Donor of each latent.
            replies (`Sequence`):
                Answers of the model.

        Returns:
            [`CounterfactualEffect`] or `None`: None if the edit should change no answer.
        """
        expected = [
            world.counterfactual(int(row["seed"]), step + 1, str(states[donor, step]), depth=int(row["depth"]))
            for row, donor in zip(self.rows, donors, strict=True)
        ]
        changed = [index for index, row in enumerate(self.rows) if expected[index] != usual_wording(row)[1]]
        if not changed:
            return None
        clips = [self.clips[index] for index in changed]
        draws = Draws(clusters=clips, num_resamples=NUM_RESAMPLES, seed=self.seed)
        follows = [
            is_correct(replies[index].answer, _with_outcome(self.rows[index], expected[index])) for index in changed
        ]
        keeps = [is_correct(replies[index].answer, self.rows[index]) for index in changed]
        return CounterfactualEffect(
            step + 1, share_interval(follows, **draws), share_interval(keeps, **draws), len(changed)
        )


def is_correct(answer: Answer, row: Row) -> bool:
    """Return True if an answer is the one of a row: the option that it names, or without options the same words."""
    if _has_options(row):
        return answer.choice is not None and answer.choice == expected_choice(row)
    return _normalised(answer.text) == _normalised(row["answer"])


def _normalised(text: object) -> str:
    """Words in lower case, without the mark at the end."""
    return " ".join(str(text).casefold().split()).rstrip(".!?")


def _said(answer: Answer) -> str:
    return str(answer.choice) if answer.choice is not None else _normalised(answer.text)


def _is_unreadable(answer: Answer, row: Row) -> bool:
    return answer.choice is None and _has_options(row)


def _has_options(row: Row) -> bool:
    return bool(read_options(row) or read_choices(row))


def _with_outcome(row: Row, outcome: str) -> Row:
    """The row as if its answer were another."""
    return {**row, **{name: outcome for name in ("answer", "outcome") if row.get(name) is not None}}
