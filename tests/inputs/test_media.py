"""One rule says which frames of a clip are read, for training, for questions and for the estimate of a length."""

import io
import random
import warnings
from contextlib import suppress

import pytest
from PIL import ExifTags, Image
from tests.tiny import tiny_processor
from tests.video.clips import encode, numbered_frames, numbers

from storm_hf.errors import DatasetError
from storm_hf.evaluation import read_clip
from storm_hf.inputs.media import load_clip, load_picture
from storm_hf.model.processing_storm import MAX_FRAMES
from storm_hf.training.loading import load_rows
from storm_hf.training.samplers import clip_size


QWEN3 = {"do_sample_frames": True, "num_frames": None, "fps": 2, "min_frames": 4, "max_frames": 16}
UNSAMPLED = {"do_sample_frames": False, "num_frames": None, "fps": None}


@pytest.fixture
def sampling():
    def set_up(**settings):
        processor = tiny_processor()
        for name, value in settings.items():
            setattr(processor.video_processor, name, value)
        return processor

    return set_up


# frames of the file, their rate, settings, own settings of the row, frames that are read
CLIPS = [
    (40, 2, QWEN3, {}, 16),
    (12, 2, QWEN3, {}, 12),
    (8, 8, QWEN3, {}, 4),
    (3, 8, QWEN3, {}, 3),
    (40, 10, {**QWEN3, "max_frames": None}, {}, 8),
    (100, 2, {**QWEN3, "max_frames": None}, {}, MAX_FRAMES),
    (100, 30, UNSAMPLED, {}, MAX_FRAMES),
    (7, 30, UNSAMPLED, {}, 7),
    (40, 10, {**QWEN3, "num_frames": 6, "fps": None}, {}, 6),
    (40, 10, {**QWEN3, "num_frames": 6, "fps": None}, {"fps": 5}, 20),
    (40, 10, QWEN3, {"num_frames": 5}, 5),
    (40, 10, QWEN3, {"max_frames": 5}, 5),
    (40, 10, UNSAMPLED, {"fps": 1, "min_frames": 6}, 6),
]


@pytest.mark.parametrize(("num_frames", "fps", "settings", "own", "expected"), CLIPS)
def test_training_asking_and_lengths_count_the_same_frames(
    num_frames, fps, settings, own, expected, sampling, tmp_path
):
    processor, path = sampling(**settings), encode(tmp_path / "clip.mp4", numbered_frames(num_frames), fps=fps)
    trained = load_clip(path, processor, sampling=own)
    assert len(trained.frames) == expected
    assert clip_size(path, processor, own)[0] == expected
    if not own:
        assert numbers(read_clip(path, processor).frames) == numbers(trained.frames)


def test_short_clip_is_decoded_once(sampling, tmp_path, monkeypatch):
    from storm_hf.inputs import media

    path = encode(tmp_path / "clip.mp4", numbered_frames(7))
    calls, read = [], media.read_video
    monkeypatch.setattr(media, "read_video", lambda *args, **kwargs: calls.append(kwargs) or read(*args, **kwargs))
    load_clip(path, sampling(**UNSAMPLED))
    assert len(calls) == 1


def test_annotation_file_is_no_data_set(tmp_path):
    (tmp_path / "annotations.jsonl").write_text("{}\n")
    with pytest.raises(DatasetError, match=r"Expected a built data set, .* got the file .*annotations\.jsonl"):
        load_rows(str(tmp_path / "annotations.jsonl"))


def saved(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["picture", "path", "url", "bytes", "embedded"])
def test_photo_is_turned_as_a_viewer_shows_it(form, tmp_path):
    photo, path = Image.new("RGB", (8, 4), "red"), tmp_path / "photo.jpg"
    tags = photo.getexif()
    tags[ExifTags.Base.Orientation] = 6  # a phone that was held upright
    path.write_bytes(saved(photo, "JPEG", exif=tags))
    given = {
        "picture": Image.open(io.BytesIO(path.read_bytes())),
        "path": path,
        "url": f"file://{path}",
        "bytes": path.read_bytes(),
        "embedded": {"bytes": path.read_bytes(), "path": "elsewhere.jpg"},
    }
    assert load_picture(given[form]).size == (4, 8)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/photo.png", "https://[/photo.png"])
def test_picture_that_cannot_be_fetched_is_named(url):
    with pytest.raises(DatasetError, match="^The picture 'http.*photo.png' cannot be read: "):
        load_picture(url)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_damaged_picture_of_a_row_is_read_or_named(form):
    draws, whole = random.Random(0), saved(Image.new("RGB", (40, 40), "red"), form)
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(draws.randint(1, 8)):
            content[draws.randrange(len(content))] = draws.randrange(256)
        with suppress(DatasetError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_picture(bytes(content[: draws.randint(1, len(content))]))
