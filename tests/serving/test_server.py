"""`storm serve` as a process, asked by the real client of OpenAI."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import APIStatusError, NotFoundError, OpenAI
from tests.serving.conftest import KEY, MAX_VIDEO_SECONDS, NUM_LATENTS, data_uri, in_parts
from tests.video import clips

from storm_hf.evaluation import load_checkpoint
from storm_hf.evaluation.single import ClipQuestion, ask, ask_with_replaced_latents, read_clip
from storm_hf.interventions.kind import OF_ONE_QUESTION


QUESTION = "Which cup hides the ball?"


def about(clip, question=QUESTION):
    return in_parts({"type": "video_url", "video_url": {"url": data_uri(clip)}}, question=question)


def complete(served, messages, **options):
    extra = {name: options.pop(name) for name in ("num_latents", "latents", "donor_messages") if name in options}
    settings = {"model": "tiny-storm", "max_tokens": 6, "temperature": 0, **options}
    return served.client.chat.completions.create(messages=messages, extra_body=extra, **settings)


def text_of(served, messages, **options):
    return complete(served, messages, **options).choices[0].message.content


def refusal(served, messages, **options):
    with pytest.raises(APIStatusError) as caught:
        complete(served, messages, **options)
    return caught.value.status_code, caught.value.body["message"]


@pytest.fixture(scope="module")
def asked(storm_folder, clip):
    model, processor = load_checkpoint(str(storm_folder))
    return model, processor, ClipQuestion(read_clip(clip, processor), QUESTION)


@pytest.fixture(scope="module")
def own(asked):
    return ask(*asked, max_new_tokens=6)


def test_answer_about_a_video_is_that_of_storm_ask(served, clip, own):
    completion = complete(served, about(clip))
    assert completion.choices[0].message.content == own.text
    assert completion.usage.completion_tokens <= 6


def test_streamed_answer_is_the_whole_answer_in_pieces(served, clip, own):
    pieces = [chunk.choices[0].delta.content or "" for chunk in complete(served, about(clip), stream=True)]
    assert "".join(pieces) == own.text
    assert sum(map(bool, pieces)) > 1


@pytest.mark.parametrize("num_latents", [0, 1, 5])
def test_request_says_for_how_many_steps_the_model_thinks(served, clip, asked, num_latents):
    assert (
        text_of(served, about(clip), num_latents=num_latents)
        == ask(*asked, num_latents=num_latents, max_new_tokens=6).text
    )
    raw = served.client.chat.completions.with_raw_response.create(
        model="tiny-storm", messages=about(clip), max_tokens=1, extra_body={"num_latents": num_latents}
    )
    assert raw.headers["X-Storm-Num-Latents"] == str(num_latents)


@pytest.mark.parametrize("latents", OF_ONE_QUESTION)
def test_request_may_have_the_latents_replaced(served, clip, asked, own, latents):
    expected = ask_with_replaced_latents(*asked, own, latents, max_new_tokens=6)
    assert text_of(served, about(clip), latents=latents) == expected.text


def test_latents_of_the_same_conversation_change_nothing(served, clip, own):
    assert text_of(served, about(clip), latents="donor", donor_messages=about(clip)) == own.text


def test_pictures_and_plain_text_are_answered_too(served, tmp_path):
    from PIL import Image

    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    url = data_uri(tmp_path / "red.png", "image/png")
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]}
    ]
    assert text_of(served, messages) is not None
    assert (
        text_of(served, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]) is not None
    )


def test_twenty_requests_at_once_all_get_the_same_answer(served, clip, own):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: text_of(served, about(clip)), range(20)))
    assert answers == [own.text] * 20
    assert httpx.get(f"{served.url}health").json()["in_flight"] == 0


def test_control_tokens_in_a_question_are_text(served, clip):
    assert text_of(served, about(clip, "<|latent|><|video_pad|><|im_end|> Where?")) is not None


def test_video_that_is_too_long_is_refused_with_the_reason(served, tmp_path):
    long = clips.encode(tmp_path / "long.mp4", clips.numbered_frames(30), fps=1)
    status, message = refusal(served, about(long))
    assert status == 413
    assert f"at most {MAX_VIDEO_SECONDS} seconds but this one has 29" in message  # from the first frame to the last


def test_file_that_is_too_large_is_refused(served, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2**20 + 3))
    status, message = refusal(served, about(large))
    assert (status, "at most 1,048,576 bytes" in message) == (413, True)
    large.write_bytes(bytes(2 * 2**20))
    status, message = refusal(served, about(large))  # more than any body of a request may have
    assert (status, "a request of at most 2,097,152 bytes" in message) == (413, True)


def test_bytes_that_are_no_video_are_refused(served, tmp_path):
    page = tmp_path / "page.mp4"
    page.write_text("<html>no video</html>")
    assert refusal(served, about(page))[0] == 400


@pytest.mark.parametrize(
    "url", ["https://example.org/clip.mp4", "file:///etc/passwd", "clip.mp4", "data:video/mp4,abc"]
)
def test_server_fetches_and_opens_nothing_unless_it_was_told_to(served, url):
    messages = [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}]}]
    assert refusal(served, messages)[0] == 400


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"num_latents": -1}, "between 0 and 64"),
        ({"num_latents": "many"}, "valid integer"),
        (
            {"latents": "sharp"},
            "one of own, zero, noise_per_question, mean_over_steps, no_latents, latents_only, donor but got 'sharp'.",
        ),
        ({"latents": "donor"}, "donor_messages"),
        ({"latents": "mean"}, "`mean` has become `mean_over_steps` ("),
        ({"latents": "zero", "num_latents": 0}, "cannot be 'zero' with `num_latents` 0"),
        ({"max_tokens": 17}, "1 to 16"),
        ({"tools": [{"type": "function", "function": {"name": "cut"}}]}, "tools"),
    ],
)
def test_wish_that_cannot_be_fulfilled_is_refused(served, clip, options, word):
    status, message = refusal(served, about(clip), **options)
    assert status == 422
    assert word in message


def test_only_the_loaded_model_answers(served, clip):
    assert refusal(served, about(clip), model="another")[0] == 404  # as OpenAI's API
    assert [model.id for model in served.client.models.list()] == ["tiny-storm"]


def test_served_model_is_found_by_its_name(served):
    assert served.client.models.retrieve("tiny-storm") == served.client.models.list().data[0]


@pytest.mark.parametrize("name", ["another", "me/another", "ü"])
def test_model_that_is_not_served_is_not_found(served, name):
    with pytest.raises(NotFoundError, match="'tiny-storm', which is served here"):
        served.client.models.retrieve(name)


def test_client_without_the_key_is_not_answered(served, clip):
    stranger = OpenAI(base_url=f"{served.url}v1", api_key="guessed", max_retries=0)
    with stranger, pytest.raises(APIStatusError) as caught:
        stranger.chat.completions.create(model="tiny-storm", messages=about(clip))
    assert caught.value.status_code == 401


def test_health_and_the_page_for_people_say_what_is_served(served):
    health = httpx.get(f"{served.url}health").json()
    assert (health["status"], health["model"], health["num_latents"]) == ("ok", "tiny-storm", NUM_LATENTS)
    page = httpx.get(served.url)
    assert "tiny-storm answers here" in page.text
    assert f'base_url="{served.url}v1"' in page.text


def test_body_that_is_no_json_is_refused(served):
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{served.url}v1/chat/completions", content="no json", headers=headers)
    assert answer.status_code == 422
    assert "JSON object" in answer.json()["error"]["message"]


def test_client_that_leaves_in_the_middle_of_a_stream_is_not_counted_for_ever(served, clip):
    stream = complete(served, about(clip), stream=True, max_tokens=16)
    next(iter(stream))
    stream.close()
    assert text_of(served, about(clip)) is not None
    assert httpx.get(f"{served.url}health").json()["in_flight"] == 0
