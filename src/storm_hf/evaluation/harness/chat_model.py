"""Adapter of a model to lmms-eval: `--model storm` on unmodified tasks."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from huggingface_hub.utils import tqdm
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from lmms_eval.utils import Collator

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.harness.answer_log import AnswerLog, LoggedAnswer, question_key
from storm_hf.evaluation.harness.benchmarks import describe_weights, resolve_commit
from storm_hf.evaluation.harness.checkpoint import load_for_harness
from storm_hf.evaluation.harness.requests import (
    ChatGenerator,
    HarnessQuestion,
    clip_by_clip,
    read_question,
    video_paths,
)
from storm_hf.evaluation.harness.settings import ChatSettings
from storm_hf.evaluation.harness.sharing import AnsweringProcesses
from storm_hf.video.library_backends import use_video_backend


_GENERATION = 2  # where the generation arguments stand in `Instance.args` of a chat task


@dataclass
class AnswerCounts(TokenCounts):
    """Cost of an answer, as lmms-eval writes it into its samples: its own counts, and those of `LoggedAnswer`."""

    answer: LoggedAnswer | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all counts by their names."""
        return super().to_dict() if self.answer is None else self.answer.counts()


class StormChat(lmms):
    """A STORM, an adapter or a plain checkpoint, answering through the chat tasks of lmms-eval.

    Args:
        stays_loaded (`bool`, *optional*, defaults to `False`):
            Whether the model is kept after a run, for the next one. lmms-eval frees it otherwise.
        processes ([`~storm_hf.evaluation.harness.sharing.AnsweringProcesses`], *optional*):
            Processes that are given the same requests and share them. By default this one answers all that lmms-eval gives it.
        arguments:
            See [`ChatSettings`].

    Raises:
        ConfigurationError: If an argument is unknown or out of range.
        CheckpointError: If the checkpoint cannot be loaded.
    """

    is_simple = False  # takes messages

    def __init__(
        self, *, stays_loaded: bool = False, processes: AnsweringProcesses | None = None, **arguments: object
    ) -> None:
        super().__init__()
        asked = ChatSettings.from_arguments(arguments)
        use_video_backend(asked.video_backend)
        self.settings = replace(asked, revision=resolve_commit(asked.pretrained, asked.revision))
        self.stays_loaded = stays_loaded
        self._processes = processes or AnsweringProcesses()
        weights = describe_weights(self.settings.pretrained, self.settings.revision)
        self._identity = {**self.settings.identity, **weights}
        self.batch_size = self.settings.batch_size
        self.generator: ChatGenerator | None = ChatGenerator(*load_for_harness(self.settings), self.settings)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self._loaded.model.device

    @property
    def _loaded(self) -> ChatGenerator:
        assert self.generator is not None, "the model was freed by clean()"
        return self.generator

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer requests, those in the answer log aside, together with the other processes if there are any.

        Args:
            requests (`list[Instance]`):
                Requests of chat tasks.

        Returns:
            `list[GenerationResult]`: Answers in the order of the requests.
        """
        rank = self.rank or self._processes.rank  # one of the two splits questions, lmms-eval or we
        log = AnswerLog(Path(self.settings.answers), rank) if self.settings.answers else None
        keys = [self._key(request.args) for request in requests]
        answers = {key: answer for key in keys if log is not None and (answer := log.get(key)) is not None}
        pending = {key: request.args for key, request in zip(keys, requests, strict=True) if key not in answers}
        self._processes.wait()  # until all have read the log, since they share what none of them found in it
        own: dict[str, LoggedAnswer] = {}
        batches = self._batches(list(pending.values()))
        total = sum(map(len, batches))
        progress = tqdm(total=total, disable=rank != 0, desc="Answering", unit="question")
        for batch, inputs in self._encoded(batches):
            given = self._loaded.answer(batch, inputs)
            named = {self._key_of(question): answer for question, answer in zip(batch, given, strict=True)}
            own.update(named)
            if log is not None:
                log.add(named)
            progress.update(len(batch))
        progress.close()
        answers.update(self._processes.gather(own))
        return [_result(answers[key]) for key in keys]

    def _batches(self, requests: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
        """Return the share of this process, in batches of requests that want to be generated alike.

        The longest come first: what does not fit into memory fails at once. Whole batches are shared, so that the numbers of an
        answer are those of one process to the last bit.
        """
        collator = Collator(
            requests,
            lambda arguments: (-len(arguments[0]), arguments[0]),
            group_fn=lambda arguments: arguments[_GENERATION],
            grouping=True,
        )
        chunks = list(collator.get_batched(n=self.batch_size))
        groups: Sequence[Hashable] = range(len(chunks))
        if self.batch_size == 1:  # a clip is read once for questions that follow each other
            clips = [self._videos(chunk[0]) for chunk in chunks]
            order = clip_by_clip(clips)
            chunks, groups = [chunks[place] for place in order], [clips[place] for place in order]
        return [chunks[place] for place in self._processes.share(groups)]

    def _videos(self, arguments: tuple[Any, ...]) -> tuple[str, ...]:
        return video_paths(self._conversation(arguments))

    def _question(self, arguments: tuple[Any, ...]) -> HarnessQuestion:
        return read_question(arguments, self._conversation(arguments), self.settings.prompt)

    def _conversation(self, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        _, doc_to_messages, _, doc_id, task, split = arguments
        return ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id])).to_hf_messages()

    def _encoded(
        self, batches: list[list[tuple[Any, ...]]]
    ) -> Iterator[tuple[list[HarnessQuestion], dict[str, torch.Tensor]]]:
        """Decode the videos of the next batch while the model answers this one."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            waiting = None
            for requests in batches:
                batch = [self._question(arguments) for arguments in requests]
                encoding = reader.submit(self._loaded.encode, batch)
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = batch, encoding
            if waiting is not None:
                yield waiting[0], waiting[1].result()

    def _key(self, arguments: tuple[Any, ...]) -> str:
        context, _, generation, doc_id, task, _ = arguments
        return question_key(task, doc_id, context, generation or {}, self._identity)

    def _key_of(self, question: HarnessQuestion) -> str:
        return question_key(question.task, question.doc_id, question.context, question.generation, self._identity)

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Refuse to score given answers.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            "This model answers questions; it does not score given answers (loglikelihood). Choose a task with "
            "`output_type: generate_until`, as those of Video-MME, MVBench, TempCompass and MMVU are."
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Refuse dialogues.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            "A prompt thinks once, before its one answer; tasks of several rounds are not offered. Choose a task with "
            "`output_type: generate_until`."
        )

    def clean(self) -> None:
        """Free the model, as lmms-eval asks before it scores; unless it stays loaded."""
        if not self.stays_loaded:
            self.generator = None
            super().clean()


def _result(answer: LoggedAnswer) -> GenerationResult:
    counts = AnswerCounts(answer.input_tokens, answer.output_tokens, answer.reasoning_tokens, answer)
    return GenerationResult(text=answer.text, token_counts=counts)
