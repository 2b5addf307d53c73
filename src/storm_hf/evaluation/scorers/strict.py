"""One careful reader for all benchmarks: it reads what an answer says, and where that is not clear, it reads nothing.

The English article "A" is never the option A, a letter within a word is no letter, and an answer that names two options names
none. What cannot be read is wrong, and counted on its own. Only captions need a judge.
"""

import re
import unicodedata

from storm_hf.evaluation.scorers.question import Question, Reading, closed_reading


_SUPERSCRIPTS = str.maketrans({power: f"^{digit}" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})
_SPECIAL_TOKEN = re.compile(r"</?s>|<\|\w+\|>")
_THINKING = re.compile(r"<(think|thinking|analysis)>.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_END_OF_THINKING = re.compile(r"</(?:think|thinking|analysis)>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_MARKUP = re.compile(r"[*`\"“”‘’$]|(?<!\w)_|_(?!\w)")
_ARTICLE = re.compile(r"\b(?:a|an|the)\s+")
_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d+(?:\.\d+)?")
_ANSWER_IS = re.compile(r"(?:so|thus|therefore)?\W*(?:the )?(?:final |correct )?answer(?: is)?\s*:?\s*", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\W*(yes|no)\b(?!\W*(?:or|and|/)\W*(?:yes|no)\b)", re.IGNORECASE)

# Where `{label}` stands if an answer names it. What follows tells a letter from an article: an end, a mark, or a reason.
_REASON = r",?\s+(?:because|since|as|is correct|is right)\b"
_ALONE = r"(?:^|\n)\W*(?i:{label})\W*$"
_ANNOUNCED = (
    r"(?i:\b(?:answer|option|choice|choose|pick|select)(?:\s+(?:is|would be))?\s*:?\s*(?:option\s+)?)"
    r"[(\[]?{label}[)\]]?(?:(?=\s*(?:$|[.,;:!)\]\n]))|" + _REASON + ")"
)
_FIRST = r"^[(\[]?{label}(?:[)\].:]+(?=\s|$)|\s+[-–—]\s|\s*\n|" + _REASON + ")"
_LISTED = r"(?:^|\s)[(\[]?{label}[)\].:]+(?=\s|$)|(?:^|\n)\W*{label}\W*(?=\n|$)"


def read_strict(question: Question, completion: str) -> Reading:
    """Read an answer of any benchmark."""
    said = _said(completion)
    if question.kind == "captioning":
        return Reading(None, None, readable=bool(said), counted=False)
    if question.kind == "open-ended":
        return Reading(said or None, bool(said) and _same_answer(question.answer, said), readable=bool(said))
    choice = _yes_or_no(said) if question.kind == "yes_no" else _named_option(question, said)
    return closed_reading(choice, question)


def _said(completion: str) -> str:
    """The answer alone: without thinking, end-of-text marks, markup and wide letters."""
    text = _END_OF_THINKING.split(_THINKING.sub(" ", _normal(completion)))[-1]
    text = _SPECIAL_TOKEN.sub(" ", text)
    for mark in (_ANSWER_TAG, _BOXED):
        text = (mark.findall(text) or [text])[-1]
    return _MARKUP.sub("", text).strip()


def _normal(text: str) -> str:
    """Write full-width letters, ligatures and powers in one way."""
    return unicodedata.normalize("NFKC", text.translate(_SUPERSCRIPTS))


def _yes_or_no(said: str) -> str | None:
    """The one of both words that an answer begins with, or announces; none where it begins with both."""
    match = _YES_OR_NO.match(_ANSWER_IS.sub("", said, count=1))
    return match[1].lower() if match else None


def _named_option(question: Question, said: str) -> str | None:
    """The one option that an answer names: by its label alone, by its text alone, or by its label in a sentence."""
    texts = [_plain(text) for text in question.options]
    by_text = {label for label, text in zip(question.option_labels, texts, strict=True) if text == _plain(said)}
    in_sentence = _labels_in(question, said, _ANNOUNCED) or _labels_in(question, said, _FIRST)
    named = _labels_in(question, said, _ALONE) or by_text or in_sentence
    if len(named) != 1 or _contradicts(question, said, *named):
        return None
    return next(iter(named))


def _labels_in(question: Question, said: str, form: str) -> set[str]:
    """The options whose label stands in a text in a form."""
    return {label for label in question.option_labels if re.search(form.replace("{label}", _pattern(label)), said)}


def _pattern(label: str) -> str:
    """A label in a sentence: a capital, a small letter only in parentheses; of `Option 1` the number will do."""
    short = re.escape(label.split()[-1])
    letter = rf"(?:{short}|(?<=[(\[]){short.lower()}(?=[)\]]))"
    return letter if label == label.split()[-1] else rf"(?:(?i:{re.escape(label)})|{letter})"


def _contradicts(question: Question, said: str, label: str) -> bool:
    """Whether an answer lists another option too, or gives another one's text behind the label."""
    texts = dict(zip(question.option_labels, map(_plain, question.options), strict=True))
    behind = _plain(re.sub(_FIRST.replace("{label}", _pattern(label)), "", said))
    is_other_text = behind in texts.values() and behind != texts[label]
    return is_other_text or bool(_labels_in(question, said, _LISTED) - {label})


def _plain(text: str) -> str:
    """A text without case, articles and the marks around it."""
    lowered = " ".join(_MARKUP.sub("", _normal(text)).casefold().split())
    return _ARTICLE.sub("", lowered.strip(" .,;:!?()[]"))


def _same_answer(expected: str, said: str) -> bool:
    """Whether an open answer is the expected one word for word, numbers written in any way.

    A lower bound: a paraphrase is wrong here, and only a judge can say otherwise.
    """
    return _plain(_with_plain_numbers(_ANSWER_IS.sub("", said, count=1))) == _plain(_with_plain_numbers(expected))


def _with_plain_numbers(text: str) -> str:
    """Write numbers one way: `1,000.0` and `1000` are the same."""
    return _NUMBER.sub(lambda match: f"{float(match[0].replace(',', '')):.12g}", text)
