"""The option that an answer names: one reader for `storm ask`, `storm diagnose`, the demo and the scorer `strict`.

An answer names an option by its label (`B`, `(b)`, `B. a dog`, `the answer is b.`), by its text alone, or by ending with its
text after some reasoning. An answer that denies the option, or offers another one beside it, names none.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence


_SUPERSCRIPTS = str.maketrans({power: f"^{digit}" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})
_SPECIAL_TOKEN = re.compile(r"</?s>|<\|\w+\|>")
_THINKING = re.compile(r"<(think|thinking|analysis)>.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_END_OF_THINKING = re.compile(r"</(?:think|thinking|analysis)>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_TEX_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"[*`\"“”‘’$]|(?<!\w)_|_(?!\w)")
_ARTICLE = re.compile(r"\b(?:a|an|the)\s+")
_MARKS = " .,;:!?()[]"
ANSWER_IS = re.compile(r"(?:so|thus|therefore)?\W*(?:the )?(?:final |correct )?answer(?: is)?\s*:?\s*", re.IGNORECASE)

# Where `{label}` stands if an answer names it. What follows distinguishes a letter from an article: an end, a mark, or a reason.
_REASON = r",?\s+(?:because|since|as|is correct|is right)\b"
_ALONE = r"(?:^|\n)\W*(?i:{label})\W*$"
_ANNOUNCED = (
    r"(?i:\b(?:answer|option|choice|choose|pick|select)(?:\s+(?:is|would be))?\s*:?\s*(?:option\s+)?)"
    r"[(\[]?{label}[)\]]?(?:(?=\s*(?:$|[.,;:!)\]\n]))|" + _REASON + ")"
)
_FIRST = r"^[(\[]?{label}(?:[)\].:]+(?=\s|$)|\s+[-–—]\s|\s*\n|" + _REASON + ")"
_LAST_ITEM = r"(?:^|\s)[(\[]?{label}[)\].:]+\s+(?i:{option})\W*$"
_LISTED = r"(?:^|\s)[(\[]?{label}[)\].:]+(?=\s|$)|(?:^|\n)\W*{label}\W*(?=\n|$)"
# A small letter counts where an announcement ends with it; `a` needs a mark behind it, since it may be an article.
_SMALL_LETTER = re.compile(r"\banswer(?:\s+is)?\s*:?\s*[(\[]?(?:([b-z])[)\]]?\W*$|(a)[)\].!]+\s*$)", re.IGNORECASE)

_NEGATIONS = {
    "not",
    "no",
    "never",
    "neither",
    "nor",
    "cannot",
    "without",
    "except",
    "isnt",
    "wasnt",
    "arent",
    "cant",
    "dont",
}
_FILLERS = {"a", "an", "the", "at", "in", "on", "to", "is", "be", "by", "really", "always"}
_CONJUNCTIONS = {"or", "and", "nor"}
_INSIDE = _NEGATIONS | _FILLERS | _CONJUNCTIONS  # words that no sentence ends with


def answer_alone(completion: str) -> str:
    """Cut thinking, end-of-text marks, markup, boxes and tags off an answer, and write wide letters as narrow ones."""
    text = _END_OF_THINKING.split(_THINKING.sub(" ", normal(completion)))[-1]
    text = _TEX_TEXT.sub(r"\1", _SPECIAL_TOKEN.sub(" ", text))
    for mark in (_ANSWER_TAG, _BOXED):
        text = (mark.findall(text) or [text])[-1]
    return _MARKUP.sub("", text).strip()


def normal(text: str) -> str:
    """Write full-width letters, ligatures and powers in one way."""
    return unicodedata.normalize("NFKC", text.translate(_SUPERSCRIPTS))


def plain(text: str) -> str:
    """Write a text without case, articles and the marks around it."""
    lowered = " ".join(_MARKUP.sub("", normal(text)).casefold().split())
    return _ARTICLE.sub("", lowered.strip(_MARKS))


def read_labelled(said: str, options: Sequence[str], labels: Sequence[str]) -> int | None:
    """Read the one option that an answer names by its label, or by its text alone.

    Args:
        said (`str`):
            The answer; see [`answer_alone`].
        options (`Sequence[str]`):
            Texts of the options.
        labels (`Sequence[str]`):
            Labels of the options, such as `A` or `Caption A`.

    Returns:
        `int` or `None`: Position of the option, `None` if none is named, or several are.
    """
    labelled = _labelled(said, labels, _ALONE) or read_text(said, options)
    labelled = labelled or _labelled(said, labels, _ANNOUNCED) or _labelled(said, labels, _FIRST)
    named = labelled or _small_letter(said, labels)
    if len(named) != 1 or _contradicts(said, options, labels, *named):
        return None
    return next(iter(named))


def read_text(said: str, options: Sequence[str]) -> set[int]:
    """Read the options whose text is the whole answer, but for `The answer is`; one that is written exactly so comes first."""
    for own, other in ((said, str), (said, plain), (ANSWER_IS.sub("", said, count=1), plain)):
        wanted = own if other is str else plain(own)
        if named := {place for place, option in enumerate(options) if other(option) == wanted}:
            return named
    return set()


def read_last(said: str, options: Sequence[str]) -> int | None:
    """Read the option that an answer ends with; what comes before it is reasoning.

    Args:
        said (`str`):
            The answer; see [`answer_alone`].
        options (`Sequence[str]`):
            Possible answers: texts, or letters.

    Returns:
        `int` or `None`: Position of the longest option that the answer ends with, `None` if it ends with none, denies it, or
        joins it to another with `or`, `and` or a comma.
    """
    words, parts = _words(said), [_words(normal(option)) for option in options]
    ending = [place for place, part in enumerate(parts) if part and _folded(words[-len(part) :]) == _folded(part)]
    longest = [place for place in ending if len(parts[place]) == max(len(parts[other]) for other in ending)]
    named = [place for place in longest if words[-len(parts[place]) :] == parts[place]] or longest
    if len(named) != 1:
        return None
    tokens = [token for token in said.split() if token.strip(_MARKS)]
    before = tokens[: -len(parts[named[0]])]
    return None if _is_denied(before) or _is_joined(before, parts) else named[0]


def read_last_letter(said: str, letters: Sequence[str]) -> int | None:
    """Read the capital letter that an answer ends with, if no other one is listed."""
    place = read_last(said, letters)
    if place is None or _words(said)[-1] != letters[place] or _labelled(said, letters, _LISTED) - {place}:
        return None
    return place


def read_last_item(said: str, options: Sequence[str], labels: Sequence[str]) -> int | None:
    """Read the option that an answer ends with behind its label, `B. red`, if no other label is listed."""
    listed = _labelled(said, labels, _LISTED)
    if len(listed) != 1:
        return None
    (place,) = listed
    item = _LAST_ITEM.replace("{label}", _pattern(labels[place])).replace(
        "{option}", re.escape(normal(options[place]))
    )
    if (match := re.search(item, said)) is None:
        return None
    before, others = said[: match.start()].split(), [_words(normal(other)) for other in (*options, *labels)]
    return None if _is_denied(before) or _is_joined(before, others) else place


def read_mentioned(said: str, options: Sequence[str], labels: Sequence[str] = ()) -> int | None:
    """Read the option that the last sentence with an option in it speaks of.

    Args:
        said (`str`):
            The answer; see [`answer_alone`].
        options (`Sequence[str]`):
            Texts of the options.
        labels (`Sequence[str]`, *optional*):
            Labels of the options. An answer that names one is none of words.

    Returns:
        `int` or `None`: Position of the option, `None` if the sentence speaks of none or several, or denies something.
    """
    if any(_labelled(said, labels, form) for form in (_LISTED, _ANNOUNCED, _FIRST)):
        return None
    parts = [_folded(_words(normal(option))) for option in options]
    for sentence in reversed(_sentences(said.replace("/", " "), {word for part in parts for word in part})):
        words = _folded(_words(sentence))
        if named := [place for place, part in enumerate(parts) if _stands_in(part, words)]:
            is_denied = any(word in _NEGATIONS or word.endswith("n't") for word in words)
            return named[0] if len(named) == 1 and not is_denied else None
    return None


def _sentences(said: str, of_options: Collection[str]) -> list[str]:
    """Split an answer into its sentences. One also begins with a capital behind a chain of bare words: `red blue It is blue.`"""
    sentences: list[list[str]] = []
    for line in said.splitlines():
        last = "."
        for word in line.split():
            is_behind_chain = word[0].isupper() and last.islower() and last.isalpha() and last not in _INSIDE
            if last.endswith((".", "!", "?")) or (is_behind_chain and word.strip(_MARKS).casefold() not in of_options):
                sentences.append([])
            sentences[-1].append(word)
            last = word
    return [" ".join(sentence) for sentence in sentences]


def _stands_in(part: Sequence[str], words: Sequence[str]) -> bool:
    starts = range(len(words) - len(part) + 1) if part else ()
    return any(words[start : start + len(part)] == part for start in starts)


def _labelled(said: str, labels: Sequence[str], form: str) -> set[int]:
    """The options whose label stands in a text in a form."""
    return {place for place, label in enumerate(labels) if re.search(form.replace("{label}", _pattern(label)), said)}


def _pattern(label: str) -> str:
    """A label in a sentence: a capital, a small letter only in parentheses; of `Option 1` the number will do."""
    short = re.escape(label.split()[-1])
    letter = rf"(?:{short}|(?<=[(\[]){short.lower()}(?=[)\]]))"
    return letter if label == label.split()[-1] else rf"(?:(?i:{re.escape(label)})|{letter})"


def _small_letter(said: str, labels: Sequence[str]) -> set[int]:
    match = _SMALL_LETTER.search(said)
    letter = (match[1] or match[2]).upper() if match else None
    return {place for place, label in enumerate(labels) if label.split()[-1] == letter}


def _contradicts(said: str, options: Sequence[str], labels: Sequence[str], named: int) -> bool:
    """Tell an answer that lists another option too, or gives another one's text behind the label."""
    texts = [plain(option) for option in options]
    behind = plain(re.sub(_FIRST.replace("{label}", _pattern(labels[named])), "", said))
    is_other_text = behind in texts and behind != texts[named]
    return is_other_text or bool(_labelled(said, labels, _LISTED) - {named})


def _words(text: str) -> list[str]:
    """Words without the marks around them; a mark that stands alone is none."""
    return [word for part in text.split() if (word := part.strip(_MARKS))]


def _folded(words: Sequence[str]) -> list[str]:
    return [word.casefold() for word in words]


def _is_denied(before: Sequence[str]) -> bool:
    """Tell `not red` and `it isn't at red`, by the last word that is no filler."""
    last = next((word for word in reversed(_folded(_words(" ".join(before)))) if word not in _FILLERS), "")
    return last in _NEGATIONS or last.endswith("n't")


def _is_joined(before: Sequence[str], options: Sequence[Sequence[str]]) -> bool:
    """Tell `green or red` and `green, red`, where the word before ends another option."""
    rest = list(before)
    while rest and rest[-1].casefold() in _FILLERS:
        rest.pop()
    is_list = bool(rest) and rest[-1].endswith((",", "/", "&"))
    words = _folded(_words(" ".join(rest)))
    if not is_list and (not words or words.pop() not in _CONJUNCTIONS):
        return False
    return any(option and words[-len(option) :] == _folded(option) for option in options)
