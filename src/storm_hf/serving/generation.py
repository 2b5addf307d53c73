"""Generation as a chat completion asks for it: settings, penalties, stop strings, and text as it is decoded."""

import copy
from collections.abc import Callable, Collection
from threading import Event

import torch
from tokenizers.decoders import DecodeStream
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria

from storm_hf.errors import RequestError
from storm_hf.serving.request import ChatCompletionRequest


_LOWEST_TEMPERATURE = 0.01  # below, logits over the temperature overflow; the limit, greedy decoding, is used


class AnswerText(StoppingCriteria):
    """Text of one answer while its tokens are generated; ends it at a stop string, or when the client is gone.

    It reads the tokens as a stopping criterion, which sees each one before the next is made; a streamer is one behind.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Decodes the tokens.
        stop (`list[str]`):
            Strings that end the answer and are no part of it.
        end_ids (`Collection[int]`):
            Tokens that end the answer.
        on_text (`Callable[[str], None]`):
            Called with each piece of text. What may be the beginning of a stop string is held back.
        cancelled (`threading.Event`):
            Set when the client is gone.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: list[str],
        end_ids: Collection[int],
        on_text: Callable[[str], None],
        cancelled: Event,
    ) -> None:
        self.token_ids: list[int] = []
        self.text = ""
        self.is_ended = False
        self._tokenizer, self._stop, self._end_ids = tokenizer, stop, end_ids
        self._on_text, self._cancelled = on_text, cancelled
        self._decoder = DecodeStream([], skip_special_tokens=True)
        self._num_sent = 0
        self._has_stopped = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.BoolTensor:
        """Decode the last of `input_ids` (1, S), and decide whether it ends the answer."""
        if not self.is_ended:  # some devices generate one token more
            token_id = int(input_ids[0, -1])
            self.token_ids.append(token_id)
            self._add(self._decoder.step(self._tokenizer.backend_tokenizer, token_id) or "")
            self.is_ended |= token_id in self._end_ids
        ends = self.is_ended or self._cancelled.is_set()
        return torch.full((len(input_ids),), ends, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]

    def finish(self) -> None:
        """Send what was held back, and a character that the end of the answer cut."""
        whole = self._tokenizer.decode(self.token_ids, skip_special_tokens=True)
        if not self._has_stopped and whole.startswith(self.text):
            self._add(whole[len(self.text) :])
        self._send(len(self.text))

    def _add(self, piece: str) -> None:
        if not piece:
            return
        longest = max(map(len, self._stop), default=1)
        searched = max(0, len(self.text) - longest + 1)
        self.text += piece
        found = [place for stop in self._stop if (place := self.text.find(stop, searched)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.is_ended = self._has_stopped = True
        self._send(len(self.text) - (0 if found else self._num_held()))

    def _num_held(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        lengths = [
            length for stop in self._stop for length in range(1, len(stop)) if self.text.endswith(stop[:length])
        ]
        return max(lengths, default=0)

    def _send(self, end: int) -> None:
        if end > self._num_sent:
            piece, self._num_sent = self.text[self._num_sent : end], end
            self._on_text(piece)


class RepetitionPenalties(LogitsProcessor):
    """OpenAI's frequency and presence penalties, over the tokens of the answer so far.

    Args:
        answer ([`AnswerText`]):
            The answer.
        frequency (`float`):
            Subtracted from a token's logit for each time that it occurs.
        presence (`float`):
            Subtracted once if it occurs.
    """

    def __init__(self, answer: AnswerText, frequency: float, presence: float) -> None:
        self.answer, self.frequency, self.presence = answer, frequency, presence

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Penalize tokens that occurred; `scores` has shape `(1, vocab_size)`."""
        token_ids = torch.tensor(self.answer.token_ids, dtype=torch.long, device=scores.device)
        counts = torch.bincount(token_ids, minlength=scores.shape[-1])
        return scores - self.frequency * counts - self.presence * (counts > 0)  # type: ignore[return-value]


def generation_config(
    request: ChatCompletionRequest, default: GenerationConfig, vocab_size: int, max_new_tokens: int
) -> GenerationConfig:
    """Make the settings of an answer; greedy unless the request has a temperature.

    Args:
        request ([`ChatCompletionRequest`]):
            The request.
        default ([`~transformers.GenerationConfig`]):
            Settings of the checkpoint. Those of sampling and beams are left out.
        vocab_size (`int`):
            Number of tokens that a bias can be for.
        max_new_tokens (`int`):
            Longest answer.

    Raises:
        RequestError: If a bias is for no token of the model.
    """
    config = copy.deepcopy(default)
    config.update(num_beams=1, num_return_sequences=1, max_new_tokens=max_new_tokens)
    # Values, not None: `generate` fills None from the checkpoint.
    config.update(temperature=1.0, top_p=1.0, top_k=50, typical_p=1.0, epsilon_cutoff=0.0, eta_cutoff=0.0)
    config.do_sample = request.temperature is not None and request.temperature >= _LOWEST_TEMPERATURE
    if config.do_sample:
        top_p = 1.0 if request.top_p is None else request.top_p
        config.update(temperature=request.temperature, top_p=top_p, top_k=0, min_p=0.0)
    biases = {int(name): bias for name, bias in request.logit_bias.items()}
    if biases and max(biases) >= vocab_size:
        raise RequestError(
            f"Expected token ids below {vocab_size:,} in `logit_bias` but got {max(biases):,}.",
            422,
            param="logit_bias",
        )
    config.sequence_bias = [[[token_id], float(bias)] for token_id, bias in biases.items()] or None
    return config
