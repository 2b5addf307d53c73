"""Patterns of credentials, searched in any text, also where it is encoded once more."""

import base64
import re
from collections.abc import Iterator


# Names of files that hold credentials and nothing else.
SECRET_NAMES = re.compile(
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


def holds_secret(text: str) -> bool:
    """Search a text for credentials, as they are and within base64 and hexadecimal runs."""
    return _holds(text) or any(_holds(decoded.decode("latin-1")) for decoded in decoded_runs(text))


def holds_key(content: bytes) -> bool:
    """Search bytes that are no text for keys that are known by how they begin."""
    text = content.decode("latin-1")
    return any(pattern.search(text) for pattern in _PATTERNS)


def decoded_runs(text: str) -> Iterator[bytes]:
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
