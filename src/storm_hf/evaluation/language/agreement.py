"""Rule by which an answer counts as the one that was given before training."""

import re
import unicodedata
from collections import Counter


SMALLEST_F1 = 0.6
_FUNCTION_WORDS = (
    "a an the this that these those it its he she they we you i my your his her their our me him them us "
    "is are was were be been being am do does did has have had having can could will would shall should may might must "
    "of in on at to for from by with as into onto about over and or but so if than then there here "
    "what which who whom whose when where why how also just very really quite sure certainly course well okay ok please "
    "approximately roughly typically usually generally often actually simply "
    "s d ll m re ve"  # left by an apostrophe
)
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
_NEGATIONS = frozenset(("not", "no", "never", "none", "nothing", "neither", "nor", "cannot"))
_LIST_MARKER = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])\s+", re.MULTILINE)
_FIRST_ITEM = re.compile(r"\A(?:\d+[.)]|[-*•])[ \t]+")
_NEXT_ITEM = re.compile(r"\n+[ \t]*(?:\d+[.)]|[-*•])[ \t]+")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)*]*(?:\s+|$)|(?<![:\n])\n+")
_CONTRACTED_NOT = re.compile(r"n['’]t\b")
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W_]+")
_LOOP_OF_WORDS = re.compile(r"(?:^| )(\S+(?: \S+){0,15}?)(?: \1){2,}(?= |$)")
_LOOP_OF_LETTERS = re.compile(r"([^\W\d]{1,8}?)\1{7,}")
_FEWEST_LOOPED_WORDS = 6


def same_answer(before: str, after: str, prompt: str = "") -> bool:
    """Judge whether a model answers as it did before.

    Two answers are the same if neither is empty, neither repeats itself in a loop, and one of these holds:

    1. Their first sentences have the same words, whatever their case, punctuation and spaces. The items of a list are one
       sentence, and a sentence that ends in a colon includes the line that follows it.
    2. Their first sentences agree in whether something is denied, and have the same content: all content words of one are in the
       other, or both have the same numbers and a token F1 of their content words of 0.6 or more. Content words are those that are
       neither function words ("the", "is", "usually") nor words of the prompt. Where one of the two sentences has no others, they
       need to have the same words of the prompt.

    The words of a prompt say nothing about its answer: "The capital of Italy is Rome" and "The capital of Italy is Paris" share
    two of three content words, and "Rome" shares one of three with the correct sentence. Without them, the first pair shares
    none, and the second all. The limit was set on two sets of 50 answers that SmolLM2-135M-Instruct gave with and without a
    system prompt. No answer reached more than 0.5 with one to another prompt (2,450 pairs), and pairs from 0.6 on said the same
    when they were read. The rule knows no synonyms, so it errs on the side of "differs".

    Args:
        before (`str`):
            Answer before training.
        after (`str`):
            Answer after it.
        prompt (`str`, *optional*):
            The question or instruction that both answer.
    """
    if any(not words_of(answer) or repeats_itself(answer) for answer in (before, after)):
        return False
    first, second = (words_of(first_sentence(answer)) for answer in (before, after))
    return first == second or _has_same_content(first, second, set(words_of(prompt)))


def first_sentence(answer: str) -> str:
    """Cut an answer after its first sentence. The items of a list are joined, their marks left out."""
    text = _NEXT_ITEM.sub("; ", _FIRST_ITEM.sub("", answer.strip()))
    parts = (part for part in _END_OF_SENTENCE.split(text) if words_of(part))
    return next(parts, "")


def words_of(text: str) -> list[str]:
    """Read the words and numbers of a text in lower case, without punctuation; "isn't" becomes "is not"."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(_CONTRACTED_NOT.sub(" not", text))


def repeats_itself(answer: str) -> bool:
    """Find a loop: one to 16 words three times in a row and six words or more in all, or letters eight times in a row."""
    text = " ".join(words_of(_LIST_MARKER.sub("", answer)))
    loops = (match[0].split() for match in _LOOP_OF_WORDS.finditer(text))
    return any(len(words) >= _FEWEST_LOOPED_WORDS for words in loops) or _LOOP_OF_LETTERS.search(text) is not None


def token_f1(first: list[str], second: list[str]) -> float:
    """Harmonic mean of the shares of words of either list that the other one has too; 0 if one is empty."""
    num_shared = (Counter(first) & Counter(second)).total()
    return 2 * num_shared / (len(first) + len(second)) if num_shared else 0.0


def _has_same_content(first: list[str], second: list[str], asked: set[str]) -> bool:
    if _is_denied(first) != _is_denied(second):
        return False
    contents = [[word for word in words if word not in _STOP_WORDS] for words in (first, second)]
    own = [[word for word in words if word not in asked] for words in contents]
    if not all(own):
        return bool(contents[0]) and sorted(contents[0]) == sorted(contents[1])
    shorter, longer = sorted(map(set, own), key=len)
    return shorter <= longer or (_numbers(first) == _numbers(second) and token_f1(*own) >= SMALLEST_F1)


def _is_denied(words: list[str]) -> bool:
    return bool(_NEGATIONS.intersection(words))


def _numbers(words: list[str]) -> set[str]:
    return {word for word in words if word[0].isdigit()}
