import base64
import io

import numpy as np
import pytest
from PIL import Image

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.reporting import frame_data_uri, side_by_side, video_data_uri
from storm_hf.video import read_video, write_video


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (4, 16, 32, 3), dtype=np.uint8)


def content(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2], validate=True)


def test_film_in_an_address_is_the_file_byte_for_byte(frames, tmp_path):
    path = write_video(tmp_path / "clip.mp4", frames, fps=2)
    uri = video_data_uri(path)
    assert uri.startswith("data:video/mp4;base64,")
    assert content(uri) == path.read_bytes()
    assert uri == video_data_uri(path.read_bytes())


def test_film_that_browsers_cannot_play_is_refused(tmp_path):
    path = tmp_path / "page.mp4"
    path.write_text("<html>not found</html>")
    with pytest.raises(VideoReadError, match=r"page\.mp4 is not an mp4 file"):
        video_data_uri(path)


def test_missing_film_is_named(tmp_path):
    with pytest.raises(VideoReadError, match=r"gone\.mp4 does not exist"):
        video_data_uri(tmp_path / "gone.mp4")


def test_frame_in_an_address_keeps_every_pixel(frames):
    picture = np.asarray(Image.open(io.BytesIO(content(frame_data_uri(frames[0])))))
    np.testing.assert_array_equal(picture, frames[0])


def test_scaled_frame_turns_each_pixel_into_a_square(frames):
    picture = np.asarray(Image.open(io.BytesIO(content(frame_data_uri(frames[0], scale=3)))))
    assert picture.shape == (48, 96, 3)
    np.testing.assert_array_equal(picture[1::3, 1::3], frames[0])


@pytest.mark.parametrize(("frame", "scale"), [(np.zeros((4, 4, 3)), 1), (np.zeros((4, 4, 3), np.uint8), 0)])
def test_wrong_frame_or_scale_is_refused(frame, scale):
    with pytest.raises(DatasetError, match="Expected"):
        frame_data_uri(frame, scale)


@pytest.mark.parametrize(("align", "held"), [("start", [0, 1, 1, 1]), ("end", [0, 0, 0, 1])])
def test_shorter_film_holds_a_frame_until_both_are_as_long(frames, align, held):
    film = side_by_side(frames, frames[:2], gap_px=4, align=align)
    assert film.shape == (4, 16, 68, 3)
    np.testing.assert_array_equal(film[:, :, :32], frames)
    np.testing.assert_array_equal(film[:, :, 36:], frames[held])


def test_clip_beside_its_thought_can_be_written_as_a_video(frames, tmp_path):
    path = write_video(tmp_path / "both.mp4", side_by_side(frames, frames), fps=2)
    assert read_video(path).frames.shape == (4, 16, 72, 3)


def test_films_of_different_height_are_refused(frames):
    with pytest.raises(DatasetError, match="16 pixels and the thought video 8"):
        side_by_side(frames, frames[:, :8])
