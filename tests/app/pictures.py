"""Take the pictures of the page that README and docs show, of a checkpoint with a decoder (`storm imagine` trains one):

.venv-app/bin/python -m tests.app.pictures runs/demo/storm docs/pictures
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from tests.app.browsing import answer_again, app_page, ask_example, open_at
from tests.reporting.chromium import chromium


WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 420, "height": 900}
NUM_COLOURS = 128
LARGEST_BYTES = 200_000
MARGIN_PX = 16
RULE_PX = 2  # the line above a heading
DONOR = "Example 3"


def take_pictures(browser: Any, address: str, folder: Path, donor: str = DONOR) -> list[Path]:
    """Picture an answer, what becomes of it with another clip's thoughts in the dark, and a narrow window."""
    page = open_at(browser, address, viewport=WIDE)
    ask_example(page)
    answered = _keep(_above(page, "#replies"), folder / "app.png")
    page = open_at(browser, address, viewport=WIDE, color_scheme="dark")
    ask_example(page)
    change_for(page, donor)
    changed = _keep(_below(page), folder / "app_changed.png")
    page = open_at(browser, address, viewport=NARROW)
    ask_example(page)
    return [answered, changed, _keep(_above(page, "#replies"), folder / "app_narrow.png")]


def change_for(page: Any, example: str) -> str:
    """Answer again with the thoughts about an example in the place of the own ones, and return what is said of it."""
    page.get_by_label("another clip's thought").check()
    donor = page.get_by_role("button", name=example).nth(1)
    donor.wait_for()
    donor.click()
    page.locator("video").nth(1).wait_for()
    return answer_again(page)


def _above(page: Any, lowest: str) -> bytes:
    """The page from its top to the end of an element."""
    _rest(page)
    end = page.locator(lowest).bounding_box()
    return _shot(page, 0, end["y"] + end["height"])


def _below(page: Any) -> bytes:
    """The part where thoughts are changed."""
    _rest(page)
    top = page.get_by_role("heading", name="Change what it thinks").bounding_box()
    end = page.get_by_role("button", name="Answer again").bounding_box()
    return _shot(page, top["y"] + RULE_PX, end["y"] + end["height"])


def _rest(page: Any) -> None:
    """Let go of the page, and wait until nothing moves."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.wait_for_timeout(500)


def _shot(page: Any, top: float, end: float) -> bytes:
    clip = {"x": 0, "y": top, "width": page.viewport_size["width"], "height": end + MARGIN_PX - top}
    return bytes(page.screenshot(full_page=True, clip=clip))


def _keep(png: bytes, path: Path) -> Path:
    """Write a picture with few colours, which is a small file."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main(model: str, folder: Path) -> None:
    """Open the page and picture it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        app_page(model, Path(scratch, "address")) as address,
        chromium() as browser,
    ):
        for picture in take_pictures(browser, address, folder):
            sys.stdout.write(f"{picture}  {picture.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
