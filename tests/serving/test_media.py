"""What comes in with a request, and from where."""

import base64
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from tests.tiny import tiny_processor
from tests.video import clips

from storm_hf.errors import RequestError
from storm_hf.serving.media import MediaPolicy
from storm_hf.video import VideoLimits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    clips.encode(folder / "a clip.mp4", clips.numbered_frames(8))
    Image.new("RGB", (8, 4), "red").save(folder / "red.png")
    (folder.parent / "secret.mp4").write_bytes((folder / "a clip.mp4").read_bytes())
    return folder


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture
def web(folder) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_file_of_the_shown_folder_is_read(folder, processor):
    clip = MediaPolicy(folder=folder).video("file:///a%20clip.mp4", processor)
    assert clips.numbers(clip.frames) == list(range(8))


@pytest.mark.parametrize("name", ["../secret.mp4", "%2e%2e/secret.mp4", "none.mp4", ""])
def test_nothing_else_of_the_machine_is_read(folder, processor, name):
    with pytest.raises(RequestError, match="There is no file"):
        MediaPolicy(folder=folder).video(f"file:///{name}", processor)


def test_link_out_of_the_folder_is_not_followed(folder, processor):
    link = folder / "link.mp4"
    link.symlink_to(folder.parent / "secret.mp4")
    with pytest.raises(RequestError, match="There is no file"):
        MediaPolicy(folder=folder).video("file:///link.mp4", processor)
    link.unlink()


def test_url_is_fetched_where_it_is_allowed(web, processor):
    clip = MediaPolicy(allows_urls=True).video(f"{web}/a%20clip.mp4", processor)
    assert clips.numbers(clip.frames) == list(range(8))


def test_url_that_is_not_there_is_the_fault_of_the_request(web, processor):
    with pytest.raises(RequestError, match="could not be fetched"):
        MediaPolicy(allows_urls=True).video(f"{web}/none.mp4", processor)


def test_fetching_stops_at_the_limit(web, processor):
    with pytest.raises(RequestError, match="at most 100 bytes") as caught:
        MediaPolicy(allows_urls=True, max_bytes=100).video(f"{web}/a%20clip.mp4", processor)
    assert caught.value.status == 413


def test_picture_is_limited_in_pixels(folder):
    door = MediaPolicy(folder=folder, limits=VideoLimits(max_frame_pixels=31))
    with pytest.raises(RequestError, match="at most 31 pixels but this one has 32"):
        door.image("file:///red.png")
    assert MediaPolicy(folder=folder).image("file:///red.png").getpixel((0, 0)) == (255, 0, 0)


def test_what_is_no_picture_is_refused(folder):
    with pytest.raises(RequestError, match="cannot be read as one"):
        MediaPolicy(folder=folder).image("file:///a%20clip.mp4")


@pytest.mark.parametrize("content", ["?", "YWJ", "a b"])
def test_broken_base64_is_refused(processor, content):
    with pytest.raises(RequestError, match="does not decode"):
        MediaPolicy().video(f"data:video/mp4;base64,{content}", processor)


def test_size_is_checked_before_anything_is_decoded(processor):
    content = base64.b64encode(bytes(1000)).decode()
    with pytest.raises(RequestError, match="at most 10 bytes") as caught:
        MediaPolicy(max_bytes=10).video(f"data:video/mp4;base64,{content}", processor)
    assert caught.value.status == 413
