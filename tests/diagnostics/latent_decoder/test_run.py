"""The page shows clip, true and imagined thought of each row, and the numbers say who drew right."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.diagnostics.thinker import NUM_LATENTS

from storm_hf.diagnostics.latent_decoder import DecoderTraining, Plane, path_chart, thought_film
from storm_hf.diagnostics.latent_decoder.renderer import LatentRenderer
from storm_hf.diagnostics.latent_decoder.run import decoder_of, imagine_rows
from storm_hf.errors import DatasetError, LatentError, StaleWorkError
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.video import read_video


QUICK = DecoderTraining(num_updates=5, batch_size=8)


@pytest.fixture(scope="module")
def splits(thought_rows):
    return {"train": thought_rows[:10], "validation": thought_rows[10:20], "test": thought_rows[20:]}


def test_everything_there_is_to_see_is_written(thinker, trajectory, splits, tmp_path):
    decoder = decoder_of(tmp_path / "model", trajectory, splits, training=QUICK)
    report = imagine_rows(
        LatentRenderer(thinker.model, thinker.processor, decoder, trajectory),
        splits["test"][:4],
        splits["validation"],
        tmp_path / "out",
        name="a <tiny> thinker",
        command="storm imagine",
        num_scenes=2,
    )
    page = (tmp_path / "out" / "imagine.html").read_text()
    assert page.count("<video") == 2
    assert page.count("<img") == 2 * 3 * NUM_LATENTS
    assert page.count("<polyline") == 2 * 2
    assert "a &lt;tiny&gt; thinker" in page
    assert json.loads((tmp_path / "out" / "imagine.json").read_text()) == vars(report)
    assert report.num_frames == 4 * NUM_LATENTS
    assert 0 <= report.drawn_right <= 1
    film = read_video(tmp_path / "out" / "film_0.mp4").frames
    assert len(film) == NUM_LATENTS + 1  # the steps, then what precedes them
    with Image.open(tmp_path / "out" / "film_0.gif") as moving:
        assert moving.n_frames > 1


def test_decoder_is_trained_once_and_one_of_other_targets_is_refused(trajectory, thought_rows, splits, tmp_path):
    first = decoder_of(tmp_path, trajectory, splits, training=QUICK)
    assert decoder_of(tmp_path, trajectory, {}).config == first.config
    features = [row["thought_features"] for row in thought_rows]
    other = TargetTrajectory.fit([features], num_latents=NUM_LATENTS, rank=8, layout="concat")
    with pytest.raises(StaleWorkError, match="Delete that folder"):
        decoder_of(tmp_path, other, splits)


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_missing_split_is_told(trajectory, splits, tmp_path, missing):
    kept = {name: splits[name] for name in ("train", "validation") if name != missing}
    with pytest.raises(DatasetError, match="split"):
        decoder_of(tmp_path, trajectory, kept)


def numbered(first: int, count: int) -> np.ndarray:
    return np.stack([np.full((16, 32, 3), first + index, np.uint8) for index in range(count)])


@pytest.mark.parametrize(
    ("num_frames", "seen"),
    [(10, [5, 7, 9, 0, 2]), (6, [1, 3, 5]), (3, [0, 0, 2])],
    ids=["longer clip", "equal", "shorter clip"],
)
def test_each_picture_of_the_film_shows_the_end_of_one_step_in_all_three_panels(num_frames, seen):
    film = thought_film(numbered(0, num_frames), numbered(50, 6), numbered(100, 3), height=16)
    assert film.shape == (len(seen), 16, 3 * 32 + 2 * 8, 3)
    left, middle, right = (film[:, 0, column, 0].tolist() for column in (0, 40, -1))
    assert left == seen
    assert middle[:3] == [51, 53, 55]
    assert right[:3] == [100, 101, 102]
    assert middle[3:] == right[3:] == [48] * (len(seen) - 3)  # nothing is thought yet


def test_wide_panels_of_the_film_lie_below_each_other():
    wide = np.concatenate([numbered(0, 6)] * 4, axis=2)
    film = thought_film(wide, wide + 50, wide[:3] + 100, height=16)
    assert film.shape == (3, 3 * 16 + 2 * 8, 4 * 32, 3)
    assert [film[:, row, 0, 0].tolist() for row in (0, 24, -1)] == [[1, 3, 5], [51, 53, 55], [100, 101, 102]]


def test_plane_is_where_targets_differ_and_its_signs_are_fixed():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(200, 5)) * [0.1, 4, 0.1, 2, 0.1] + 7
    plane = Plane.fit(points)
    assert np.abs(plane.axes).argmax(axis=0).tolist() == [1, 3]
    assert (plane.axes[[1, 3], [0, 1]] > 0.99).all()
    assert plane.explained > 0.99
    assert np.allclose(plane(points).mean(axis=0), 0)
    chart = path_chart(plane, points, points[:3], points[3:6], title="a & b")
    assert chart.count("<polyline") == 2
    assert "a &amp; b" in chart
    with pytest.raises(LatentError):
        Plane.fit(np.ones((4, 5)))


def test_pictures_go_into_another_page_with_their_films(thinker, trajectory, splits, tmp_path):
    decoder = decoder_of(tmp_path, trajectory, splits, training=QUICK)
    rows = splits["test"]
    html = str(LatentRenderer(thinker.model, thinker.processor, decoder, trajectory).pictures(rows[:2], rows[2:]))
    assert html.count('<video class="film" src="data:video/mp4;base64,') == 2
    assert html.count("<img") == 2 * 3 * NUM_LATENTS
