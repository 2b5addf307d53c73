"""The card shows clips beside their thoughts, and nothing of a row that may not be passed on."""

import io

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image, ImageFont
from tests.hub.conftest import VIDEO, row_of

from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.push import DatasetPush
from storm_hf.hub.thoughts_picture import _shortened
from storm_hf.video import write_video


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "me/thoughts"
COLOURS = {"CC0-1.0": 60, "CC-BY-4.0": 120, "proprietary": 180, "unknown": 240}  # red of a clip, by its licence


def plain(path, red, green, side=56):
    frames = np.zeros((4, side, side, 3), dtype=np.uint8)
    frames[..., 0], frames[..., 1] = red, green
    write_video(path, frames, fps=4)


@pytest.fixture
def filmed(folder):
    """The data set of `conftest.py` with real videos: clips are red by their licence, thought videos green too."""
    for number in range(8):
        row = row_of(number)
        red = COLOURS[row["license"]]
        plain(folder / row["video"], red, 0)
        plain(folder / row["thought_video"], red, 200, side=112)
    return folder


def push(folder, api, **options):
    return DatasetPush(folder, REPO, api=api, **options).run()


def picture(store):
    return np.asarray(Image.open(io.BytesIO(store.read(REPO, "assets/thoughts.png")))).astype(int)


def reds(pixels, green):
    """The levels of red on large areas with this level of green and no blue."""
    chosen = pixels[(abs(pixels[..., 1] - green) < 12) & (pixels[..., 2] < 25) & (pixels[..., 0] > 30)]
    return {red for red in COLOURS.values() if (abs(chosen[:, 0] - red) < 14).sum() > 1000}


def files(store):
    return set(store.repositories["dataset", REPO].files("main"))


def test_clips_stand_above_their_thoughts_in_the_card(filmed, api, store):
    push(filmed, api)
    pixels = picture(store)
    assert reds(pixels, green=0) == reds(pixels, green=200) == {60, 120}
    rows_of_clips = np.flatnonzero(
        ((pixels[..., 0] > 40) & (pixels[..., 1] < 30) & (pixels[..., 2] < 30)).sum(axis=1) > 300
    )
    rows_of_thoughts = np.flatnonzero(((pixels[..., 1] > 170) & (pixels[..., 2] < 30)).sum(axis=1) > 300)
    assert rows_of_clips.min() < rows_of_thoughts.min() < rows_of_clips.max() < rows_of_thoughts.max()
    card = DatasetCard(store.read(REPO, "README.md").decode())
    assert "](assets/thoughts.png)" in card.content


def test_same_rows_give_the_same_bytes(filmed, api, store):
    push(filmed, api)
    first = store.read(REPO, "assets/thoughts.png")
    push(filmed, api)
    assert store.read(REPO, "assets/thoughts.png") == first


def test_what_the_owner_allows_is_shown_too(filmed, api, store):
    push(filmed, api, rule=LicenseRule(allowed=frozenset({"proprietary"})))
    assert reds(picture(store), green=0) == {60, 120, 180}


@pytest.mark.parametrize(
    "options", [{"embeds": False}, {"rule": LicenseRule(denied=frozenset(COLOURS))}], ids=["reference", "denied"]
)
def test_without_rows_to_show_there_is_no_picture_and_an_old_one_goes(filmed, api, store, options):
    push(filmed, api)
    assert "assets/thoughts.png" in files(store)
    push(filmed, api, **options)
    assert "assets/thoughts.png" not in files(store)
    assert "![" not in store.read(REPO, "README.md").decode()


def test_videos_that_cannot_be_read_are_left_out(folder, api, store):
    plain(folder / row_of(5)["video"], 60, 0)
    plain(folder / row_of(5)["thought_video"], 60, 200)
    push(folder, api)
    assert reds(picture(store), green=0) == {60}
    (folder / row_of(5)["thought_video"]).write_bytes(VIDEO + b"broken")  # begins as one, and cannot be read
    push(folder, api)
    assert "assets/thoughts.png" not in files(store)


@pytest.mark.parametrize(("words", "is_cut"), [("Where?", False), ("Where is it now? " * 40, True)])
def test_long_question_keeps_to_one_line(words, is_cut):
    font = ImageFont.load_default(15)
    shown = _shortened(words, font, 400)
    assert font.getlength(shown) <= 400
    assert shown.endswith("...") is is_cut
