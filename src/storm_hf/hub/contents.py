"""File types by content, and contents that must not be published.

A file is published if it is text, weights, plain arrays, a picture or a video. Everything else cannot be looked into.
"""

import io
import pickletools
import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from storm_hf.errors import PublicationError
from storm_hf.hub.secrets import SECRET_NAMES, decoded_runs, holds_key, holds_secret


_LARGEST_READ = 256 * 2**20  # bytes that are read whole; a longer file is weights or a video
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_VIDEOS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    b"OggS",
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",
    b"\x00\x00\x00\x01",  # H.264, HEVC
    b"YUV4MPEG2 ",
    b"DKIF",
    b"GIF89a",
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # MP4, QuickTime
_ARCHIVES = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"Rar!",
)
_PICKLES = re.compile(r".*\.(bin|ckpt|dill|joblib|pickle|pkl|p|pt|pth)(\..*)?")
_RUNS_CODE = {"GLOBAL", "INST", "OBJ", "REDUCE", "STACK_GLOBAL", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def check_file(path: Path, name: str) -> str | None:
    """Make sure that a file may be published, whatever it is called.

    Args:
        path (`Path`):
            The file.
        name (`str`):
            Its path in the repository.

    Returns:
        `str`, *optional*: Its text, if it is one.

    Raises:
        PublicationError: If it holds a credential or a pickle, or is of a kind that cannot be looked into; the message names
            it and shows nothing of its content.
    """
    if SECRET_NAMES.fullmatch(path.name.lower()):
        raise credential(name)
    with path.open("rb") as file:
        head = file.read(4096)
    if name.endswith(".safetensors"):
        _check_weights(path, name)
        return None
    if _PICKLES.fullmatch(path.name.lower()) or path.stat().st_size > _LARGEST_READ:
        raise _pickled(name)
    content = path.read_bytes()
    if is_pickle(content):
        raise _pickled(name)
    if head.startswith((*_ARCHIVES, b"\x93NUMPY")):
        _check_arrays(content, name)
        return None
    text = text_of(content)
    if text is not None:
        check_secrets(text, name)
        return text
    _check_binary(content, name)
    return None


def check_secrets(text: str, place: str) -> None:
    """Refuse a text that holds a credential, or a pickle in base64.

    Raises:
        PublicationError: If it does.
    """
    if holds_secret(text):
        raise credential(place)
    if any(is_pickle(decoded) for decoded in decoded_runs(text)):
        raise _pickled(place)


def is_video(path: Path) -> bool:
    """Tell whether a file begins as a video does."""
    with path.open("rb") as file:
        head = file.read(2 * 192 + 5)
    return (
        head.startswith(_VIDEOS)
        or head[4:8] in _BOXES
        or (head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WEBP"))
        or any(
            len(head) > 2 * size and head[start] == head[start + size] == 0x47 for start, size in ((0, 188), (4, 192))
        )
    )


def is_pickle(content: bytes) -> bool:
    """Tell whether bytes are a pickle of any protocol, within a zip file of `torch.save` too."""
    if content[:1] == b"\x80" and content[1:2] <= b"\x05" and len(content) > 2:
        return content.rstrip(b"\x00")[-1:] == b"." or _runs_code(content)
    if content[:2] == b"PK":
        return any(name.endswith((".pkl", ".pickle")) for name in _members(content))
    return content[:1] in b"c(i]}ldpSVIFLNKMJGTUXB)" and _runs_code(content)


def text_of(content: bytes) -> str | None:
    """Decode bytes as text: UTF-8, UTF-16 or UTF-32, with or without a mark; None if they are no text."""
    if content.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        encodings = ["utf-32"]
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "utf-16-le", "utf-16-be"] if b"\x00" in content[:1024] else ["utf-8-sig", "latin-1"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not _CONTROL.search(text):
            return text
    return None


def credential(place: str) -> PublicationError:
    """Make the error of a credential that was found somewhere."""
    return PublicationError(
        f"Expected no credentials in what is published but {place} holds what looks like one. Remove it; if it was ever "
        "shared, revoke it."
    )


def _pickled(name: str) -> PublicationError:
    return PublicationError(
        f"Expected no pickled files in what is published but found {name}: opening one runs its code. Save weights as "
        "safetensors, and leave the file out."
    )


def _closed(name: str, reason: str) -> PublicationError:
    return PublicationError(
        f"Expected files that can be looked into but {name} {reason}. Leave it out, or publish it as text, safetensors, "
        "plain arrays, a picture or a video."
    )


def _check_weights(path: Path, name: str) -> None:
    try:
        with safe_open(path, framework="np") as weights:
            words = weights.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _closed(name, "holds no whole safetensors") from error
    check_secrets("\n".join([*words, *words.values()]), name)


def _check_arrays(content: bytes, name: str) -> None:
    """Let arrays of numbers pass, in one file or in many; they have no pickles."""
    if content[:2] == b"PK" and not all(member.endswith(".npy") for member in _members(content)):
        raise _closed(name, "is an archive")
    try:
        arrays = np.load(io.BytesIO(content), allow_pickle=False)
        for member in arrays.files if isinstance(arrays, np.lib.npyio.NpzFile) else ():
            arrays[member]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        pickled = "Object arrays" in str(error)
        raise (_pickled(name) if pickled else _closed(name, "is an archive")) from error
    if holds_key(content):
        raise credential(name)


def _check_binary(content: bytes, name: str) -> None:
    is_known = content.startswith((*_PICTURES, *_VIDEOS)) or content[4:8] in _BOXES or content[:4] == b"RIFF"
    if not is_known and not name.endswith(".model"):  # of SentencePiece
        raise _closed(name, "is of no kind that is known")
    if holds_key(content):
        raise credential(name)
    if content.startswith(_PICTURES):
        check_secrets("\n".join(_words_in_picture(content, name)), name)


def _words_in_picture(content: bytes, name: str) -> list[str]:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            values = [*picture.info.values(), *getattr(picture, "text", {}).values(), *picture.getexif().values()]
    except (OSError, ValueError, SyntaxError) as error:
        raise _closed(name, "is no whole picture") from error
    return [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in values]


def _members(content: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return [""]


def _runs_code(content: bytes) -> bool:
    """Tell whether bytes can be read as a pickle to its end, and call something on the way."""
    calls = False
    try:
        for opcode, argument, _ in pickletools.genops(content):
            calls |= opcode.name in _RUNS_CODE
            if opcode.name in ("GLOBAL", "INST") and not re.fullmatch(r"[\w.]+ [\w.]+", str(argument)):
                return False
    except Exception:
        return False
    return calls
