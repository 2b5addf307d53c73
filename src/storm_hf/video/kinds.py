"""Kinds of files that are read as videos, and what a file is that cannot be read.

FFmpeg knows hundreds of formats. Some of them are playlists, patterns of names or scripts that make it open other files, and
most were never meant for untrusted files. Only those of this list are read.
"""

import re
from pathlib import Path


_VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,kux,asf,ogg,ogv,nut,mxf,rm,dv,wtv,nsv,swf,amv,gxf,ivf,"
    "obu,av1,h261,h263,h264,hevc,vvc,evc,m4v,mpegvideo,mjpeg,vc1,vc1test,dirac,cavsvideo,yuv4mpegpipe,gif,apng"
)
_IMAGE_FORMATS = "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,ppm_pipe,pgm_pipe,j2k_pipe,jpegxl_pipe"
_SOUND_FORMATS = "mp3,wav,w64,aiff,flac,aac,ac3,eac3,au,caf,amr,ape,wv,tta,dts,truehd"  # to name what they are
FORMATS = f"{_VIDEO_FORMATS},{_IMAGE_FORMATS},{_SOUND_FORMATS}"

_SNIFFED_BYTES = 1024
_PLAYLIST = re.compile(
    rb"\s*(#extm3u|ffconcat|\[playlist\]|<\?xml[^>]*>\s*<(mpd|smil|asx|playlist)|<(mpd|smil|asx)|v=0\r?\n)"
)
_NUMBERED = re.compile(r"%\d*d|%0\d+d")
_TAGGED_BYTES = 2**18
# The four characters of a codec in an MP4 sample description and an AVI stream header, and Matroska's name of one.
_CODEC_TAG = re.compile(rb"stsd.{12}([ -~]{4})|vids([ -~]{4})|(V_[A-Za-z0-9/_]+)", re.DOTALL)


def describe_content(path: Path) -> str:
    """Describe a file that cannot be opened as a video, by its name and first bytes."""
    beginning = _read(path, 0, _SNIFFED_BYTES).lstrip().lower()
    if _PLAYLIST.match(beginning):
        return "it is a playlist, which only names other files"
    if _NUMBERED.search(path.name):
        return "it is not of a kind that is read under such a name, which is a pattern for many files"
    if beginning.startswith((b"<!doctype html", b"<html")) or b"<html" in beginning:
        return "it is an HTML page, as a failed download leaves behind"
    if b"<svg" in beginning:
        return "it is an SVG drawing"
    if beginning.isascii() and b"\0" not in beginning:
        return "it is text"
    return "it is damaged, cut off before its index, or of an unknown kind"


def codec_tag(path: Path) -> str:
    """Find the name that a file has for the codec of its pictures; "unknown" where it is in no known place."""
    size = path.stat().st_size
    for start in (0, max(0, size - _TAGGED_BYTES)):
        if match := _CODEC_TAG.search(_read(path, start, _TAGGED_BYTES)):
            return next(filter(None, match.groups())).decode("ascii").strip() or "unknown"
    return "unknown"


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
