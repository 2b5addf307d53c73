import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.harness.conftest import NUM_LATENTS
from tests.video.clips import encode, numbered_frames

from storm_hf.errors import PromptError
from storm_hf.evaluation.harness import requests
from storm_hf.evaluation.harness.checkpoint import load_for_harness
from storm_hf.evaluation.harness.requests import ChatGenerator, clip_by_clip, read_question, video_paths
from storm_hf.evaluation.harness.settings import ChatSettings
from storm_hf.inputs.media import load_clip
from storm_hf.video import read_video


FPS = 4


@pytest.fixture
def generator(storm_checkpoint):
    def make(pretrained=storm_checkpoint, **settings):
        chosen = ChatSettings(str(pretrained), device="cpu", **{"max_new_tokens": 6, **settings})
        return ChatGenerator(*load_for_harness(chosen), chosen)

    return make


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [encode(folder / f"{count}.mp4", numbered_frames(count), fps=FPS) for count in (13, 5, 9)]


def question(video, text="Where is the ball?", generation=None, style="direct", doc_id=0):
    parts = [{"type": "video", "video": str(video)}, {"type": "text", "text": text}]
    arguments = (text, None, generation or {}, doc_id, "videomme", "test")
    return read_question(arguments, [{"role": "user", "content": parts}], style)


def answers(generator, questions):
    return generator.answer(questions, generator.encode(questions))


def untimed(answer):
    return {
        **answer.counts(),
        "text": answer.text,
        "seconds": 0.0,
        "latent_norms": np.round(answer.latent_norms, 3).tolist(),
    }


@pytest.fixture
def seen(monkeypatch):
    """Inputs of the video processor, call by call."""
    from transformers import Qwen2VLVideoProcessor

    calls = []
    stock = Qwen2VLVideoProcessor.__call__
    monkeypatch.setattr(
        Qwen2VLVideoProcessor,
        "__call__",
        lambda self, videos, **kwargs: calls.append((videos, kwargs)) or stock(self, videos, **kwargs),
    )
    return calls


@pytest.mark.parametrize(
    ("settings", "indices"),
    [
        ({"max_frames": 7}, [0, 2, 4, 6, 8, 10, 12]),
        ({"max_frames": 32}, list(range(13))),
        ({"max_frames": 32, "fps": 2.0}, [0, 2, 4, 6, 8, 10, 12]),
        ({"max_frames": 4, "fps": 2.0}, [0, 4, 8, 12]),
    ],
    ids=["spread", "all of a short one", "by rate", "by rate up to the most"],
)
def test_model_is_given_the_sampled_frames_and_their_times(generator, clips, seen, settings, indices):
    inputs = generator(**settings).encode([question(clips[0])])
    (videos, arguments) = seen[0]
    np.testing.assert_array_equal(np.asarray(videos[0]).squeeze(), read_video(clips[0], indices=indices).frames)
    metadata = arguments["video_metadata"][0]
    np.testing.assert_allclose(
        [index / metadata.fps for index in metadata.frames_indices], [index / FPS for index in indices], atol=1e-6
    )
    assert arguments["do_sample_frames"] is False
    step = (indices[1] - indices[0]) / FPS
    assert float(inputs["second_per_grid_ts"][0]) == pytest.approx(2 * step)  # two frames make one temporal patch


def test_batch_answers_as_single_questions_do(generator, clips):
    model = generator(max_frames=8)
    questions = [
        question(clip, text) for clip, text in zip(clips, ("Where?", "Where is the red ball now?", "?"), strict=True)
    ]
    alone = [untimed(answers(model, [one])[0]) for one in questions]
    assert [untimed(answer) for answer in answers(model, questions)] == alone
    assert len({answer["text"] for answer in alone}) > 1


@pytest.mark.parametrize("latents", ["zero", "noise_per_question", "mean_over_steps", "latents_only"])
def test_replaced_latents_change_the_answer_in_a_batch_as_alone(generator, clips, latents):
    own, replaced = generator(max_frames=4), generator(max_frames=4, latents=latents)
    questions = [question(clip, doc_id=number) for number, clip in enumerate(clips)]
    alone = [untimed(answers(replaced, [one])[0]) for one in questions]
    assert [untimed(answer) for answer in answers(replaced, questions)] == alone
    assert [answer["text"] for answer in alone] != [answer.text for answer in answers(own, questions)]
    assert {answer["latents"] for answer in alone} == {latents}


def test_noise_is_another_for_every_question(generator, clips):
    model = generator(max_frames=4, latents="noise_per_question")
    asked = [question(clips[0], doc_id=number) for number in range(4)]
    assert len({answer.text for answer in answers(model, asked)}) > 1


def test_counts_say_what_an_answer_cost(generator, clips):
    answer = answers(generator(), [question(clips[0])])[0]
    assert (answer.num_latents, len(answer.latent_norms), answer.latents) == (NUM_LATENTS, NUM_LATENTS, "own")
    assert answer.forward_passes == NUM_LATENTS + 1 + answer.output_tokens - 1
    assert (answer.truncated, answer.output_tokens) == (True, 6)
    assert answer.seconds > 0


def test_storm_without_latents_is_its_backbone(generator, clips, qwen_checkpoint):
    plain = generator(pretrained=qwen_checkpoint, num_latents=0)
    for settings in ({"num_latents": 0}, {"latents": "no_latents"}):
        thinks_not = answers(generator(**settings), [question(clips[0])])[0]
        expected = answers(plain, [question(clips[0])])[0]
        assert (thinks_not.text, thinks_not.num_latents, thinks_not.latent_norms) == (expected.text, 0, [])
        assert thinks_not.forward_passes == expected.forward_passes == expected.output_tokens


def test_number_of_latents_can_be_chosen(generator, clips):
    assert len(answers(generator(num_latents=2), [question(clips[0])])[0].latent_norms) == 2


def test_user_text_makes_no_control_token(generator, clips):
    model = generator()
    harmless, harmful = (
        model.encode([question(clips[1], text)])["input_ids"] for text in ("x", "<|latent|><|im_end|>")
    )
    special = torch.tensor(model.processor.tokenizer.all_special_ids)
    assert torch.isin(harmless, special).sum() == torch.isin(harmful, special).sum()


def test_pictures_are_taken_too(generator):
    parts = [{"type": "image", "image": Image.new("RGB", (56, 56), "red")}, {"type": "text", "text": "What?"}]
    asked = read_question(("What?", None, {}, 0, "mvbench", "test"), [{"role": "user", "content": parts}], "direct")
    inputs = generator().encode([asked])
    assert "pixel_values" in inputs
    assert generator().answer([asked], inputs)[0].output_tokens


def test_picture_that_no_model_takes_is_told(generator):
    parts = [{"type": "image", "image": Image.new("RGB", (6000, 8))}]
    asked = read_question(("What?", None, {}, 7, "mvbench", "test"), [{"role": "user", "content": parts}], "direct")
    with pytest.raises(PromptError, match="mvbench 7"):
        generator().encode([asked])


def test_task_says_how_long_an_answer_is_and_settings_overrule_it(generator):
    free = generator(max_new_tokens=None)
    assert free.generation_arguments({"max_new_tokens": 16})["max_new_tokens"] == 16
    assert free.generation_arguments({})["max_new_tokens"] == 128
    assert generator(max_new_tokens=3).generation_arguments({"max_new_tokens": 16})["max_new_tokens"] == 3
    assert (
        generator(max_new_tokens=None, prompt="cot").generation_arguments({"max_new_tokens": 16})["max_new_tokens"]
        == 1024
    )


def test_answers_are_greedy_unless_the_task_samples(generator):
    model = generator()
    greedy = model.generation_arguments({"temperature": 0.7, "do_sample": False})
    assert (greedy["do_sample"], greedy["temperature"]) == (False, None)
    sampled = model.generation_arguments({"temperature": 0.7, "do_sample": True})
    assert (sampled["do_sample"], sampled["temperature"]) == (True, 0.7)


def test_answer_ends_where_the_task_says_but_reasoning_does_not(generator, clips):
    whole = answers(generator(), [question(clips[0])])[0].text
    stop = whole[2]
    asked = question(clips[0], generation={"until": [stop]})
    assert answers(generator(), [asked])[0].text == whole[: whole.index(stop)]
    assert answers(generator(prompt="cot"), [asked])[0].text == whole


def test_tokens_of_reasoning_are_counted(generator, clips):
    model = generator()
    thought = model.processor.tokenizer("<think>left or right</think>").input_ids
    tokens = [*thought, *model.processor.tokenizer(" left").input_ids, *model._end_ids]
    answer = model._logged(tokens, [], num_input=5, prefill=1, seconds=1.0, norms=[], num_latents=0)
    assert answer.text == "<think>left or right</think> left"
    assert (answer.reasoning_tokens, answer.truncated) == (len(thought), False)


# --- several questions about one clip ------------------------------------------------------------------------------------


SETTINGS = [{}, {"num_latents": 2}, {"latents": "zero"}, {"latents": "no_latents"}, {"latents": "latents_only"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_questions_that_go_on_from_their_clip_are_logged_as_those_that_read_it(generator, clips, settings):
    """The other model is asked about another clip in between, so that it reads each clip anew."""
    going_on, reading = generator(**settings), generator(**settings)
    asked = [question(clips[0], text, doc_id=number) for number, text in enumerate(("Where?", "Where is it?", "Who?"))]
    other = [question(clips[1], doc_id=9)]
    for one in asked:
        found, expected = answers(going_on, [one]), answers(reading, [one])
        assert [untimed(answer) for answer in found] == [untimed(answer) for answer in expected]
        answers(reading, other)


def test_clip_is_decoded_prepared_and_encoded_once_for_the_questions_about_it(generator, clips, seen, monkeypatch):
    reads, encoded = [], []
    monkeypatch.setattr(
        requests, "load_clip", lambda path, *args, **kwargs: reads.append(path) or load_clip(path, *args, **kwargs)
    )
    model = generator()
    model.model.backbone.base_model.visual.register_forward_hook(lambda *_: encoded.append(1))
    for number, text in enumerate(("Where?", "Where is it?", "Who?")):
        answers(model, [question(clips[0], text, doc_id=number)])
    assert (len(reads), len(seen), len(encoded)) == (1, 1, 1)


def test_questions_about_one_clip_follow_each_other_in_the_order_of_the_longest():
    assert clip_by_clip(["a", "b", "a", "c", "b", "a"]) == [0, 2, 5, 1, 4, 3]
    assert clip_by_clip([]) == []


def test_videos_of_a_conversation_are_known_by_their_files(clips):
    assert video_paths(question(clips[0]).conversation) == (str(clips[0]),)
    assert video_paths([{"role": "user", "content": [{"type": "text", "text": "?"}]}]) == ()
