"""Files of a request: their sources, their sizes, and errors that name no path of the server."""

import base64
import errno
import io
import random
import socket
import struct
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import ExifTags, Image
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


@pytest.mark.parametrize(
    "head",
    [
        *("data:video/mp4;base64,", "data:;base64,", "DATA:video/mp4;BASE64,", "data:video/webm;codecs=vp8;base64,"),
        *("data:video/webm;codecs=vp8,opus;base64,", 'data:video/mp4;codecs="avc1.42E01E, mp4a.40.2";base64,'),
        *('data:video/mp4;name=";base64,";base64,', "data:video/mp4; codecs=vp8 ;base64,"),
    ],
)
def test_type_of_a_data_uri_may_have_parameters(folder, processor, head):
    content = base64.b64encode((folder / "a clip.mp4").read_bytes()).decode()
    assert clips.numbers(MediaPolicy().video(head + content, processor).frames) == list(range(8))


@pytest.mark.parametrize(
    "head", ["data:", "data:video/mp4,", 'data:video/mp4;name=";base64,', "data:" + "a" * 600 + ";base64,"]
)
def test_data_uri_without_base64_is_refused(processor, head):
    with pytest.raises(RequestError, match="Expected `data:<type>;base64,<content>`"):
        MediaPolicy().video(head + "AAAA", processor)


@pytest.mark.parametrize(
    "url",
    ["http://[", "file://[", "https://[::1", "ftp://a/b", "a", "", "\0", "http://a b/", "http://..", "http://xn--a"]
    + ["http://" + "a" * 300, "http://a:99999", "http:///a"],
)
def test_url_that_is_none_is_refused(processor, url):
    for policy in (MediaPolicy(), MediaPolicy(allows_urls=True)):
        with pytest.raises(RequestError):
            policy.video(url, processor)
        with pytest.raises(RequestError):
            policy.image(url)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "%00", "a" * 5000])
def test_name_that_no_file_can_have_is_refused(folder, processor, name):
    with pytest.raises(RequestError, match="There is no file"):
        MediaPolicy(folder=folder).video(f"file:///{name}", processor)


def as_uri(content):
    return "data:a/b;base64," + base64.b64encode(content).decode()


def picture(form, size=(8, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_common_kinds_of_pictures_are_read(form):
    assert MediaPolicy().image(as_uri(picture(form))).size == (8, 4)


def test_photo_is_turned_as_in_training():
    file, photo = io.BytesIO(), Image.new("RGB", (8, 4), "red")
    tags = photo.getexif()
    tags[ExifTags.Base.Orientation] = 6  # a phone that was held upright
    photo.save(file, "JPEG", exif=tags)
    assert MediaPolicy().image(as_uri(file.getvalue())).size == (4, 8)


@pytest.mark.parametrize("form", ["PPM", "SGI", "DDS", "PCX", "ICO", "EPS", "PDF", "TGA"])
def test_other_kinds_of_pictures_are_refused(form):
    with pytest.raises(RequestError, match="PNG, JPEG"):
        MediaPolicy().image(as_uri(picture(form)))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_picture_with_text_that_unpacks_to_much_is_refused():
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 1, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"A" * 80_000_000))
    with pytest.raises(RequestError, match="cannot be decoded"):
        MediaPolicy().image(as_uri(head + text + chunk(b"IDAT", zlib.compress(bytes(600))) + chunk(b"IEND", b"")))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_damaged_picture_is_read_or_refused(form):
    draws, whole = random.Random(0), picture(form, (40, 40))
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(draws.randint(1, 8)):
            content[draws.randrange(len(content))] = draws.randrange(256)
        with suppress(RequestError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MediaPolicy().image(as_uri(bytes(content[: draws.randint(1, len(content))])))


@pytest.mark.parametrize("damage", ["cut", "noise", "page", "encrypted", "empty"])
def test_message_about_a_broken_video_names_no_path(folder, processor, damage):
    whole = (folder / "a clip.mp4").read_bytes()
    content = {
        "cut": whole[:200],
        "noise": whole[:40] + bytes(range(256)) * 8,
        "page": b"<html>no video</html>",
        "encrypted": whole.replace(b"avc1", b"encv"),
        "empty": b"",
    }[damage]
    with pytest.raises(RequestError, match="^The video ") as caught:
        MediaPolicy().video(as_uri(content), processor)
    assert tempfile.gettempdir() not in str(caught.value)
    assert caught.value.status == 400


def test_message_about_a_broken_file_of_the_folder_names_no_path(folder, processor):
    (folder / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(RequestError, match="^The video ") as caught:
        MediaPolicy(folder=folder).video("file:///broken.mp4", processor)
    assert str(folder) not in str(caught.value)


def test_fault_of_the_machine_is_not_the_fault_of_the_request(folder, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        MediaPolicy(folder=folder).image("file:///red.png")


def test_server_that_sends_slowly_is_given_up(folder, processor):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b"a")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/a.mp4"
        with pytest.raises(RequestError, match=r"within 0\.5 seconds"):
            MediaPolicy(allows_urls=True, timeout_seconds=0.5).video(url, processor)
        thread.join()
