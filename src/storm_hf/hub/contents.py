"""File types by content, and contents that must not be published.

A file is published if it is text, weights, plain arrays, a picture or a video. Everything else cannot be looked into.
"""

import base64
import io
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from storm_hf.errors import PublicationError


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
        `str`, *optional*: Its text, if it is one; of weights and pictures the words that they carry.

    Raises:
        PublicationError: If it holds a credential or a pickle, or is of a kind that cannot be looked into; the message names
            it and shows nothing of its content.
    """
    if _SECRET_NAMES.fullmatch(path.name.lower()):
        raise _credential(name)
    with path.open("rb") as file:
        head = file.read(4096)
    if name.endswith(".safetensors"):
        return _checked_words(_words_in_weights(path, name), name)
    if _PICKLES.fullmatch(path.name.lower()) or path.stat().st_size > _LARGEST_READ:
        raise _pickled(name)
    content = path.read_bytes()
    if _is_pickle(content):
        raise _pickled(name)
    if head.startswith((*_ARCHIVES, b"\x93NUMPY")):
        _check_arrays(content, name)
        return None
    text = text_of(content)
    if text is not None:
        return _checked_words([text], name)
    _check_binary(content, name)
    return _checked_words(_words_in_picture(content, name), name) if content.startswith(_PICTURES) else None


def check_secrets(text: str, place: str) -> None:
    """Refuse a text that holds a credential, or a pickle in base64.

    Raises:
        PublicationError: If it does.
    """
    if _holds_secret(text):
        raise _credential(place)
    if any(_is_pickle(decoded) for decoded in _decoded_runs(text)):
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


def _is_pickle(content: bytes) -> bool:
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


def _credential(place: str) -> PublicationError:
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


def _checked_words(words: Sequence[str | bytes], name: str) -> str:
    """Look for secrets in words, encoded ones too, and join those that are text."""
    check_secrets("\n".join(word.decode("latin-1") if isinstance(word, bytes) else word for word in words), name)
    return "\n".join(filter(None, (text_of(word) if isinstance(word, bytes) else word for word in words)))


def _words_in_weights(path: Path, name: str) -> list[str | bytes]:
    try:
        with safe_open(path, framework="np") as weights:
            words = weights.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _closed(name, "holds no whole safetensors") from error
    return [*words, *words.values()]


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
    if _holds_key(content):
        raise _credential(name)


def _check_binary(content: bytes, name: str) -> None:
    is_known = content.startswith((*_PICTURES, *_VIDEOS)) or content[4:8] in _BOXES or content[:4] == b"RIFF"
    if not is_known and not name.endswith(".model"):  # of SentencePiece
        raise _closed(name, "is of no kind that is known")
    if _holds_key(content):
        raise _credential(name)


def _words_in_picture(content: bytes, name: str) -> list[str | bytes]:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            values = [*picture.info.values(), *getattr(picture, "text", {}).values(), *picture.getexif().values()]
    except (OSError, ValueError, SyntaxError) as error:
        raise _closed(name, "is no whole picture") from error
    return [value if isinstance(value, bytes) else str(value) for value in values]


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


# Names of files that hold credentials and nothing else.
_SECRET_NAMES = re.compile(
    r"\.env.*|\.?_?netrc|\.git-credentials|\.npmrc|\.pypirc|\.pgpass|\.htpasswd|kubeconfig|credentials(\..*)?|stored_tokens"
    r"|token(\.txt)?|kaggle\.json|id_(rsa|dsa|ecdsa|ed25519)(_sk)?|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk)"
)

# Keys that are known by how they begin: the beginning, which is searched fast in the megabytes of a tokenizer, and the rest.
_KEYS = {
    "hf_": r"[A-Za-z0-9]{30,}",  # Hugging Face
    "api_org_": r"[A-Za-z0-9]{30,}",
    "sk-": r"[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, DeepSeek, OpenRouter
    "gsk_": r"[A-Za-z0-9]{30,}",  # Groq
    "r8_": r"[A-Za-z0-9]{30,}",  # Replicate
    "xai-": r"[A-Za-z0-9]{30,}",
    "pplx-": r"[A-Za-z0-9]{30,}",
    "nvapi-": r"[A-Za-z0-9_-]{30,}",
    "dop_v1_": r"[0-9a-f]{30,}",  # DigitalOcean
    "lin_api_": r"[A-Za-z0-9]{30,}",
    "AIza": r"[A-Za-z0-9_-]{35}",  # Google
    "ya29.": r"[A-Za-z0-9_-]{20,}",
    "GOCSPX-": r"[A-Za-z0-9_-]{20,}",
    "xox": r"[a-z]-[A-Za-z0-9-]{10,}",  # Slack
    "xapp-": r"[A-Za-z0-9-]{10,}",
    "hooks.slack.com/services/": r"\w+/\w+/\w+",
    "/api/webhooks/": r"\d+/[\w-]+",  # Discord
    ":AA": r"(?<=\d{8}:AA)[A-Za-z0-9_-]{33}",  # Telegram
    "AKIA": r"[A-Z0-9]{16}\b",  # Amazon
    "ASIA": r"[A-Z0-9]{16}\b",
    "AccountKey=": r"[A-Za-z0-9+/=]{40,}",  # Azure
    "sig=": r"[A-Za-z0-9%+/=]{30,}",
    "ghp_": r"[A-Za-z0-9]{30,}",  # GitHub
    "gho_": r"[A-Za-z0-9]{30,}",
    "ghu_": r"[A-Za-z0-9]{30,}",
    "ghs_": r"[A-Za-z0-9]{30,}",
    "ghr_": r"[A-Za-z0-9]{30,}",
    "github_pat_": r"[A-Za-z0-9_]{22,}",
    "glpat-": r"[A-Za-z0-9_-]{20,}",  # GitLab
    "npm_": r"[A-Za-z0-9]{36}",
    "pypi-AgE": r"[A-Za-z0-9_-]{20,}",
    "dckr_pat_": r"[A-Za-z0-9_-]{20,}",  # Docker
    "SG.": r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    "sk_live_": r"[A-Za-z0-9]{16,}",  # Stripe
    "rk_live_": r"[A-Za-z0-9]{16,}",
    "hvs.": r"[A-Za-z0-9_-]{24,}",  # Vault
    "dapi": r"[0-9a-f]{32}",  # Databricks
    "eyJ": r"[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # JSON web tokens
    "-----BEGIN ": r"[A-Z0-9 ]*PRIVATE KEY",
    "PuTTY-User-Key-File": "",
    "AGE-SECRET-KEY-1": "",
}
_STARTS_IN_A_WORD = {":AA", "/api/webhooks/"}
# Keys that are known by what stands before them.
_NAMED = (
    ("wandb", r"(?i:wandb)[^\n]{0,60}?\b[0-9a-f]{40}\b"),
    ("machine", r"(?i:\bmachine\s+\S+\s+login\s+\S+\s+password\s+\S+)"),
    ("bearer", r"(?i:\bbearer\s+)(?=[^\s\"']*\d)[A-Za-z0-9._~+/-]{20,}"),
    (
        "secret token api_key api-key apikey access_key access-key accesskey account_key account-key accountkey",
        r"(?i:(?:secret|token|(?:api|access|account)[_-]?key)\\?[\"']?\s*[:=]\s*\\?[\"']?)"
        r"(?=[A-Za-z0-9+/_.~-]*\d)(?=[A-Za-z0-9+/_.~-]*[A-Za-z])[A-Za-z0-9+/_.~-]{20,}(?![\w(.])",
    ),
    (
        "password passwd passphrase",
        r"(?i:(?:password|passwd|passphrase)\\?[\"']?\s*[:=]\s*\\?[\"']?)"
        r"(?![\"'<{$(\[]|(?i:none|null|true|false)\b)[^\s\"',;]{6,}",
    ),
    ('"key"', r"\"key\"\s*:\s*\"[0-9a-f]{32}\""),  # Kaggle
    ("://", r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:[^\s/@\"'<>{}$]{3,}@[\w.-]+"),  # a password in a URL
)
_ENCODED = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{36,}")  # base64 and hexadecimal alike
_WRAPPED = re.compile(r"(?:[A-Za-z0-9+/]{60,80}\r?\n[ \t]*)+[A-Za-z0-9+/]+")  # base64 in lines, as mail has it
_SHORTEST_LINE = 60
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_LONGEST_RUN = 2**20  # characters that are decoded of one run


def _holds_secret(text: str) -> bool:
    """Search a text for credentials, as they are and within base64 and hexadecimal runs."""
    return _holds(text) or any(_holds(decoded.decode("latin-1")) for decoded in _decoded_runs(text))


def _holds_key(content: bytes) -> bool:
    """Search bytes that are no text for keys that are known by how they begin."""
    text = content.decode("latin-1")
    return any(pattern.search(text) for pattern in _PATTERNS)


def _decoded_runs(text: str) -> Iterator[bytes]:
    """Decode each run of base64 or hexadecimal characters that is long enough to hold a credential."""
    runs = [match[0] for match in _ENCODED.finditer(text)]
    if any(len(run) >= _SHORTEST_LINE for run in runs):
        runs += ["".join(match[0].split()) for match in _WRAPPED.finditer(text)]
    for run in (run[:_LONGEST_RUN] for run in runs):
        if len(run) % 2 == 0 and _HEX.fullmatch(run):
            yield bytes.fromhex(run)
        encoded = run.replace("-", "+").replace("_", "/")
        for start in range(4):  # a run may begin with characters before the encoded text
            yield base64.b64decode(encoded[start : len(encoded) - (len(encoded) - start) % 4])


def _holds(text: str) -> bool:
    if any(pattern.search(text) for pattern in _PATTERNS):
        return True
    lowered = text.lower()
    return any(any(word in lowered for word in words.split()) and re.search(named, text) for words, named in _NAMED)


def _starting(beginning: str, rest: str) -> re.Pattern[str]:
    """Compile the pattern of a key. The beginning stands first, as characters, so that it is searched fast."""
    start = re.escape(beginning)
    boundary = "" if beginning in _STARTS_IN_A_WORD else rf"(?<!\w{start})"
    return re.compile(start + boundary + rest)


_PATTERNS = tuple(_starting(beginning, rest) for beginning, rest in _KEYS.items())
