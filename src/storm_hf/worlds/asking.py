"""Questions of a world as people ask them: wording, form of the options and form of the reply, drawn from a seed.

A tiny model with the vocabulary of its world is asked in the usual wording only. A model that knows language is trained on
two thirds of the wordings, and tested on the last third, in all forms:

    options    left out; in words; listed under letters, in a drawn order
    reply      a word; a letter; a letter with its word; a sentence
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.wording import LETTERS, QuestionStyle, format_answer, format_question
from storm_hf.worlds.episode import EpisodeText
from storm_hf.worlds.world import World


Wordings = Literal["usual", "trained", "held_out"]
ReplyForm = Literal["word", "letter", "letter and word", "sentence"]

_STREAM = zlib.crc32(b"wording of a question")  # so that it is drawn apart from the episode
_STYLES: tuple[QuestionStyle, ...] = ("none", "words", "letters")
_USUAL_SHARE = 0.25  # of the questions with options: asked as `format_question` does
_SENTENCE_SHARE = 0.4  # of the other replies
_ITEM_SHARE = 0.3  # of the replies with a letter: the option follows it
_INTRODUCTIONS = (
    "Options: {any}.",
    "The options are {all}.",
    "Choose from {all}.",
    "It is one of these: {any}.",
    "Is it {any}?",
)
_LISTS = (  # one item, and the text between two
    ("{letter}. {option}", "\n"),
    ("{letter}) {option}", "\n"),
    ("({letter}) {option}", "\n"),
    ("({letter}) {option}", " "),
)
_WORD_REQUESTS = ("", "Answer in one word.", "Answer with a single word.", "One word is enough.")
_SENTENCE_REQUESTS = (
    "Answer in a sentence.",
    "Answer in a full sentence.",
    "Reply with a complete sentence.",
    "Put the answer into a sentence.",
)
_LETTER_REQUESTS = ("Answer with the letter.", "Which letter is correct?", "Give only the letter.")
_ITEM_REQUESTS = ("Answer with the letter and the option.", "Give the letter together with its option.")

_ValueT = TypeVar("_ValueT")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of an episode in one wording, with the reply to it.

    Args:
        question (`str`):
            The text of the user's turn. It is complete, unless there are `options`.
        options (`tuple[str, ...]`):
            The closed set where a prompt encoder has to add it, as with the usual wording; otherwise empty.
        answer (`str`):
            The complete reply, to be trained on.
        usual_question (`str`):
            The same question in the usual wording.
        choices (`tuple[str, ...]`):
            The closed set, in the order in which the question lists it.
        choice_style (`str`):
            Form of the choices in the question: `none`, `words` or `letters`.
        outcome (`str`):
            The correct one of them.
        spoken_chain (`str`):
            The reasoning in sentences as a language model would write it, one sentence a step.
    """

    question: str
    options: tuple[str, ...]
    answer: str
    usual_question: str
    choices: tuple[str, ...]
    choice_style: QuestionStyle
    outcome: str
    spoken_chain: str


def ask(world: World[Any], episode: EpisodeText, seed: int, wordings: Wordings) -> Asked:
    """Ask for the outcome of an episode.

    Args:
        world ([`World`]):
            The world of the episode.
        episode ([`EpisodeText`]):
            The episode.
        seed (`int`):
            Seed of the wording and the forms, 0 or more. The same one asks in the same way, in every process.
        wordings (`str`):
            `usual` asks as `EpisodeText` does, whatever the seed; `trained` and `held_out` draw one of the wordings of these names.

    Returns:
        [`Asked`]: The question, with the reply to it.

    Raises:
        ConfigurationError: If the wordings are none of these.
    """
    chain, options = world.say_chain(episode, seed), episode.options
    if wordings == "usual":
        return _asked(
            episode, episode.question, episode.answer, chain, options=options, choices=options, style="words"
        )
    generator = np.random.default_rng([seed, _STREAM])
    question = world.say(_draw(generator, _wordings_of(world, wordings)), episode)
    choices = tuple(generator.permutation(options).tolist())
    style = _draw(generator, _STYLES)
    if style != "none" and generator.random() < _USUAL_SHARE:
        turn = format_question(question, choices, style), format_answer(episode.answer, choices, style)
    else:
        item, between = _draw(generator, _LISTS)
        listed = question + _draw_list(generator, choices, style, item, between)
        request, reply = _draw_reply(generator, world, episode, choices, style, item)
        turn = (listed + request).rstrip(), reply
    return _asked(episode, *turn, chain, options=(), choices=choices, style=style)


def reply_form(reply: str, outcome: str) -> ReplyForm:
    """Tell in which form a reply gives the outcome.

    Args:
        reply (`str`):
            A complete reply, as of [`Asked`].
        outcome (`str`):
            The option that it means.
    """
    if reply == outcome:
        return "word"
    if outcome not in reply:
        return "letter"
    return "letter and word" if len(reply.split()) == 1 + len(outcome.split()) else "sentence"


def _asked(
    episode: EpisodeText,
    question: str,
    answer: str,
    spoken_chain: str,
    *,
    options: tuple[str, ...],
    choices: tuple[str, ...],
    style: QuestionStyle,
) -> Asked:
    return Asked(
        question=question,
        options=options,
        answer=answer,
        usual_question=episode.question,
        choices=choices,
        choice_style=style,
        outcome=episode.answer,
        spoken_chain=spoken_chain,
    )


def _wordings_of(world: World[Any], wordings: Wordings) -> tuple[str, ...]:
    known = {"trained": world.trained_wordings, "held_out": world.held_out_wordings}
    if wordings not in known:
        raise ConfigurationError(f"Expected wordings usual, trained or held_out but got {wordings!r}.")
    return known[wordings]


def _draw(generator: np.random.Generator, values: Sequence[_ValueT]) -> _ValueT:
    return values[int(generator.integers(len(values)))]


def _draw_list(
    generator: np.random.Generator, choices: Sequence[str], style: QuestionStyle, item: str, between: str
) -> str:
    """Write the choices, with the space before and behind them."""
    if style == "none":
        return " "
    if style == "letters":
        lines = [item.format(letter=letter, option=choice) for letter, choice in zip(LETTERS, choices, strict=False)]
        return f"{between}{between.join(lines)}{between}"
    first, last = ", ".join(choices[:-1]), choices[-1]
    introduction = _draw(generator, _INTRODUCTIONS)
    return f" {introduction.format(any=f'{first} or {last}', all=f'{first} and {last}')} "


def _draw_reply(
    generator: np.random.Generator,
    world: World[Any],
    episode: EpisodeText,
    choices: Sequence[str],
    style: QuestionStyle,
    item: str,
) -> tuple[str, str]:
    """Draw a request for a form of the reply, and the reply in that form."""
    if generator.random() < _SENTENCE_SHARE:
        sentence = world.say(_draw(generator, world.answer_sentences), episode, answer=episode.answer)
        return _draw(generator, _SENTENCE_REQUESTS), sentence
    if style != "letters":
        return _draw(generator, _WORD_REQUESTS), episode.answer
    letter = LETTERS[choices.index(episode.answer)]
    if generator.random() < _ITEM_SHARE:
        return _draw(generator, _ITEM_REQUESTS), item.format(letter=letter, option=episode.answer)
    return _draw(generator, _LETTER_REQUESTS), letter
