"""Every way to ask a saved model sends it the prompt that it was trained on: K, options, thinking and frames."""

from typing import Any

import pytest
from datasets import Dataset
from tests.tiny import tiny_qwen_checkpoint
from tests.training.tiny_videos import load_tiny, write_thoughts
from transformers import AutoProcessor

from storm_hf.app.session import Session
from storm_hf.cli.ask import ask_clip
from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.latent_decoder import imagine
from storm_hf.diagnostics.questions import Questions
from storm_hf.evaluation import ClipQuestion, ask, load_checkpoint, read_clip
from storm_hf.evaluation.batch import read_answers
from storm_hf.evaluation.harness.requests import ChatGenerator, HarnessQuestion
from storm_hf.evaluation.harness.settings import ChatSettings
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.features import cache_video_features
from storm_hf.inputs.media import load_clip, video_metadata
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.inputs.wording import format_question
from storm_hf.model import StormForConditionalGeneration
from storm_hf.serving.chat import ChatModel
from storm_hf.serving.media import MediaPolicy
from storm_hf.serving.request import Message
from storm_hf.training.arguments import record_prompts
from storm_hf.training.loading import load_rows


ALOUD = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% else %}<think>{% endif %}"
# K, style of the options, whether the template thinks aloud, frames
TRAININGS = {
    "words": (2, "words", False, {"do_sample_frames": True, "num_frames": 2}),
    "letters, aloud": (5, "letters", True, {"do_sample_frames": True, "fps": 1, "min_frames": 2, "max_frames": 6}),
    "none": (3, "none", True, {"do_sample_frames": False}),
}


class AskedError(Exception):
    """Ends a door once it has sent its prompt."""


class Trained:
    """A checkpoint as a run saves it, and the ids that the run trained on."""

    def __init__(self, folder: Any, num_latents: int, style: str, aloud: bool, sampling: dict[str, Any]) -> None:
        plain = tiny_qwen_checkpoint(folder / "plain")
        processor = AutoProcessor.from_pretrained(plain)
        for name, value in sampling.items():
            setattr(processor.video_processor, name, value)
        if aloud:
            head = "<|im_start|>assistant\n"
            processor.chat_template = processor.chat_template.replace(
                head + "{% endif %}", head + ALOUD + "{% endif %}"
            )
        processor.save_pretrained(plain)
        model, processor = load_tiny(plain, 8)  # another K than the run's
        self.rows = load_rows(str(write_thoughts(folder / "data", 2)))["train"]
        prompts = PromptEncoder(processor, model.config, num_latents, style)
        batch = AnswerCollator(prompts)([self.rows[0]])
        self.ids = batch["input_ids"][0][batch["labels"][0] == -100].tolist()
        self.style = style
        record_prompts(prompts, self.rows)
        self.folder = folder / "storm"
        model.save_pretrained(self.folder)
        processor.save_pretrained(self.folder)
        self.model, self.processor = load_checkpoint(str(self.folder))
        self.row = self.rows[0]

    @property
    def text(self) -> str:
        """The question as its row writes it."""
        return format_question(self.row["question"], self.row["options"], self.style)

    @property
    def question(self) -> ClipQuestion:
        """The question as a person asks it."""
        return ClipQuestion(read_clip(self.row["video"], self.processor), self.row["question"], self.row["options"])


@pytest.fixture(scope="module", params=TRAININGS)
def trained(request, tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("trained"), *TRAININGS[request.param])


def by_ask(trained):
    ask(trained.model, trained.processor, trained.question)


def by_command(trained):
    ask_clip(
        trained.row["video"], trained.row["question"], model=str(trained.folder), option=list(trained.row["options"])
    )


def by_diagnose(trained):
    questions = Questions([trained.row, trained.rows[1]], None, None, None, {})
    diagnose(trained.model, trained.processor, questions, batch_size=1)


def by_imagine(trained):
    imagine(trained.model, trained.processor, [trained.row], decoder=None)


def by_app(trained):
    session = Session("storm", trained.model, trained.processor, latent_view=None)
    session.think(trained.row["video"], trained.row["question"], trained.row["options"])


def by_server(trained):
    chat = ChatModel("storm", trained.model, trained.processor, MediaPolicy(folder=trained.folder.parent))
    place = trained.row["video"].removeprefix(str(trained.folder.parent))
    parts = [{"type": "video_url", "video_url": {"url": f"file://{place}"}}, {"type": "text", "text": trained.text}]
    message = Message.model_validate({"role": "user", "content": parts})
    trained.model.generate(**chat.encode([message], trained.model.config.num_latents))


def by_harness(trained):
    parts = [{"type": "video", "video": trained.row["video"]}, {"type": "text", "text": trained.text}]
    question = HarnessQuestion("task", 0, trained.text, {}, [{"role": "user", "content": parts}])
    generator = ChatGenerator(trained.model, trained.processor, ChatSettings(pretrained=str(trained.folder)))
    generator.answer([question], generator.encode([question]))


def by_cached_features(trained):
    cached = cache_video_features(Dataset.from_list([trained.row]), trained.model, trained.processor)
    prompts = PromptEncoder(trained.processor, trained.model.config, trained.model.config.num_latents)
    trained.model.generate(**prompts([cached[0]]))


def by_stock_transformers(trained):
    clip = load_clip(trained.row["video"], trained.processor)
    parts = [{"type": "video", "video": clip.frames}, {"type": "text", "text": trained.text}]
    inputs = trained.processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"do_sample_frames": False, "video_metadata": [video_metadata(clip)]},
    )
    trained.model.generate(**inputs)


DOORS = [
    *(by_ask, by_command, by_diagnose, by_imagine, by_app, by_server, by_harness),
    *(by_cached_features, by_stock_transformers),
]


@pytest.mark.parametrize("door", DOORS)
def test_door_sends_the_prompt_of_training(door, trained, monkeypatch):
    sent = []

    def generate(self, **inputs):
        sent.append(inputs["input_ids"])
        raise AskedError

    monkeypatch.setattr(StormForConditionalGeneration, "generate", generate)
    with pytest.raises(AskedError):
        door(trained)
    assert sent[0][0].tolist() == trained.ids


def test_answers_are_read_in_the_style_of_training(trained):
    said = {"words": "right", "letters": "B", "none": "right"}[trained.style]
    prompts = PromptEncoder(trained.processor, trained.model.config, 0)
    tokens = trained.processor.tokenizer(said, return_tensors="pt").input_ids
    output = type("Output", (), {"sequences": tokens, "latents": None})
    assert read_answers(output, 0, prompts, [trained.row])[0].choice == "right"


def test_ids_tell_the_frames(trained):
    assert (
        trained.ids.count(trained.model.config.video_token_id) == {"words": 4, "letters": 4, "none": 8}[trained.style]
    )
