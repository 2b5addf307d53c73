"""Contents that must not be published, under harmless names: credentials, pickles, closed archives and paths."""

import base64
import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, PngImagePlugin


LETTERS = "A1b2C3d4E5" * 8
TOKEN = "hf_" + LETTERS[:34]  # put together here, so that this file holds none


def _zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _array(content: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, content, allow_pickle=True)
    return file.getvalue()


def _arrays(**content: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def _picture(**words: str) -> bytes:
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, value in words.items():
        info.add_text(name, value, zip=True)
    Image.new("RGB", (4, 4)).save(file, "png", pnginfo=info)
    return file.getvalue()


def _photo(document: str) -> bytes:
    file, picture = io.BytesIO(), Image.new("RGB", (4, 4))
    tags = picture.getexif()
    tags[ExifTags.Base.DocumentName] = document
    picture.save(file, "jpeg", exif=tags)
    return file.getvalue()


def _weights(**words: str) -> bytes:
    from safetensors.numpy import save

    return save({"a": np.zeros(2, np.float32)}, metadata=words)


SECRETS: dict[str, str | bytes] = {
    "hugging_face.md": f"# Notes\n\nlogin with {TOKEN}, then push",
    "notebook.ipynb": json.dumps({"cells": [{"source": [f"login('{TOKEN}')"]}]}),
    "report.html": f"<p>{TOKEN}</p>",
    "job.slurm": f"export HF_TOKEN={TOKEN}",
    "recipe.yaml.bak": f"token: {TOKEN}",
    "utf16.txt": f"key {TOKEN}".encode("utf-16"),
    "utf16_without_mark.txt": f"key {TOKEN}".encode("utf-16-le"),
    "utf32.txt": f"key {TOKEN}".encode("utf-32"),
    "base64.txt": base64.b64encode(f"HF_TOKEN={TOKEN}".encode()),
    "base64_in_lines.txt": base64.encodebytes(
        f"some words before it, and then HF_TOKEN={TOKEN} and more of them".encode() * 2
    ),
    "hexadecimal.txt": f"HF_TOKEN={TOKEN}".encode().hex(),
    "openai.log": "sk-proj-" + LETTERS[:48],
    "anthropic.cfg": "sk-ant-api03-" + LETTERS[:60],
    "wandb.txt": "WANDB_API_KEY=" + "0123456789abcdef" * 2 + "01234567",
    "netrc.txt": "machine api.wandb.ai login user password " + "0123456789abcdef" * 2,
    "google.xml": "AIza" + "B" * 35,
    "google_oauth.txt": "GOCSPX-" + LETTERS[:28],
    "slack.rst": "xoxb-" + "1234567890-abcdefghijklmnop",
    "slack_hook.conf": "https://hooks.slack.com/" + "services/T000/B000/XXXX",
    "aws_id.ini": "AKIA" + "C" * 16,
    "aws_secret.properties": "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "azure.txt": "AccountName=x;AccountKey=" + LETTERS[:60] + "==",
    "github.sh": "ghp_" + LETTERS[:36],
    "github_fine.sh": "github_pat_" + LETTERS[:40],
    "gitlab.sh": "glpat-" + LETTERS[:20],
    "npm.txt": "npm_" + LETTERS[:36],
    "pypi.toml": "pypi-AgE" + LETTERS[:40],
    "docker.yml": "dckr_pat_" + LETTERS[:27],
    "stripe.txt": "sk_live_" + LETTERS[:24],
    "sendgrid.txt": "SG." + LETTERS[:22] + "." + LETTERS[:43],
    "telegram.txt": "123456789:AA" + LETTERS[:33],
    "vault.hcl": "hvs." + LETTERS[:30],
    "web_token.txt": "eyJ" + LETTERS[:20] + ".eyJ" + LETTERS[:20] + "." + LETTERS[:20],
    "bearer.txt": "Authorization: Bearer " + LETTERS[:40],
    "kaggle.txt": '{"username": "me", "key": "' + "0123456789abcdef" * 2 + '"}',
    "private.txt": "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc",
    "rsa.txt": "-----BEGIN RSA " + "PRIVATE KEY-----\nabc",
    "url.csv": "postgres://me:" + "s3cretpassw0rd@host/db",
    "password.json": json.dumps({"db_password": "correct-horse"}),
    "id_ecdsa": "x",
    "picture.png": _picture(comment=TOKEN),
    "old.safetensors": _weights(note=TOKEN),
}
PICKLES: dict[str, str | bytes] = {
    "pickled.dat": pickle.dumps(print),
    "pickled.txt": pickle.dumps(print, protocol=0),
    "pickled.md": pickle.dumps({"a": 1}, protocol=2),
    "encoded_pickle.txt": base64.b64encode(pickle.dumps({"weights": list(range(40)), "call": print})),
    "model.safetensors.old": _saved({"a": torch.zeros(2)}),
    "further.safetensors": _saved({"a": torch.zeros(2)}),
    "legacy.pt.txt": _saved({"a": torch.zeros(2)}, _use_new_zipfile_serialization=False),
    "objects.npy": _array(np.array([{}], dtype=object)),
    "objects.npz": _arrays(a=np.array([{}], dtype=object)),
    "zipped.npz": _zipped("archive/data.pkl", pickle.dumps(1)),
    "packed.json.gz": gzip.compress(pickle.dumps(1)),
    "packed.zip": _zipped("a.txt", b"x"),
    "weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "a.pickle": b"x",
    "a.pth": b"x",
    "pytorch_model.bin": b"x",
}
PATHS: dict[str, str | bytes] = {
    "path.log": "loaded /home/somebody/private/run",
    "path.md": "Weights: see `/home/somebody/private/run`.",
    "path_with_blank.txt": "it is in /Users/jo/My Models/base",
    "path_of_cluster.txt": "from /gpfs/users/jo/run",
    "path_of_nobody_knows.txt": "from /cephfs7/jo/run",
    "path_of_one_level.txt": "trained on /scratch today",
    "path_in_address.html": "<a href='file:///srv/models/x'>x</a>",
    "path_of_home.rst": "copied to ~/models/base",
    "path_of_windows.ini": "model = C:\\Users\\jo\\base",
    "path_of_share.txt": "model on \\\\server\\share\\base",
    "path.json": json.dumps({"from": "/data"}),
    "path_beside_weights.safetensors": _weights(made_from="/data/runs/7"),
    "path_in_picture.png": _picture(Source="drawn from /home/jo/clips/1.mp4"),
    "path_in_photo.jpg": _photo("/Users/jo/Pictures/1.jpg"),
}
SEEDS = {**SECRETS, **PICKLES, **PATHS}
CONFIGURED = (
    "/home/jo/My Models/base",
    "file:///home/jo/base",
    "made from /home/jo/base",
    "/data",
    "~/x y/z",
    "~jo/base",
    "C:/Users/jo/base",
    "D:\\runs",
    "\\\\server\\share\\x",
    "made on /scratch",
    "see (/cephfs/jo/run)",
)


def sow(folder: Path, names: Any = SEEDS) -> None:
    """Write seeds into a folder."""
    for name in names:
        content = SEEDS[name]
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
