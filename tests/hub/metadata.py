"""Metadata of cards as the Hub's validator checks it: its own words, kept apart from the check of the package."""

import re
from typing import Any

import yaml


_LICENSES = (
    "apache-2.0, mit, openrail, bigscience-openrail-m, creativeml-openrail-m, bigscience-bloom-rail-1.0, bigcode-openrail-m, "
    "afl-3.0, artistic-2.0, bsl-1.0, bsd, bsd-2-clause, bsd-3-clause, bsd-3-clause-clear, c-uda, cc, cc0-1.0, cc-by-2.0, "
    "cc-by-2.5, cc-by-3.0, cc-by-4.0, cc-by-sa-3.0, cc-by-sa-4.0, cc-by-nc-2.0, cc-by-nc-3.0, cc-by-nc-4.0, cc-by-nd-4.0, "
    "cc-by-nc-nd-3.0, cc-by-nc-nd-4.0, cc-by-nc-sa-2.0, cc-by-nc-sa-3.0, cc-by-nc-sa-4.0, cdla-sharing-1.0, "
    "cdla-permissive-1.0, cdla-permissive-2.0, wtfpl, ecl-2.0, epl-1.0, epl-2.0, etalab-2.0, eupl-1.1, eupl-1.2, agpl-3.0, "
    "gfdl, gpl, gpl-2.0, gpl-3.0, lgpl, lgpl-2.1, lgpl-3.0, isc, h-research, intel-research, lppl-1.3c, ms-pl, apple-ascl, "
    "apple-amlr, mpl-2.0, odc-by, odbl, openmdw-1.0, openrail++, osl-3.0, postgresql, ofl-1.1, ncsa, unlicense, zlib, pddl, "
    "lgpl-lr, deepfloyd-if-license, fair-noncommercial-research-license, llama2, llama3, llama3.1, llama3.2, llama3.3, llama4, "
    "grok2-community, gemma, unknown, other"
)
_SIZES = "unknown, n<1K, 1K<n<10K, 10K<n<100K, 100K<n<1M, 1M<n<10M, 10M<n<100M, 100M<n<1B, 1B<n<10B, 10B<n<100B, 100B<n<1T, n>1T"
_TASKS = (
    "image-text-to-text, video-text-to-text, visual-question-answering, video-classification, text-generation, other"
)
_ALLOWED = {
    "license": _LICENSES,
    "size_categories": _SIZES,
    "task_categories": _TASKS,
    "pipeline_tag": _TASKS,
    "sdk": "gradio, docker, static, streamlit",
    "colorFrom": "red, yellow, green, blue, indigo, purple, pink, gray",
}
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LISTS = ("tags", "size_categories", "task_categories", "configs", "model-index")


def metadata_problems(text: str, kind: str) -> list[str]:
    """List what the Hub's validator says against the metadata of a card."""
    if not text.startswith("---\n"):
        return []
    try:
        metadata: Any = yaml.safe_load(text.split("---\n")[1]) or {}
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"]
    problems = [f'"{name}" must be an array' for name in _LISTS if not isinstance(metadata.get(name, []), list)]
    for name, allowed in _ALLOWED.items():
        if not set(map(str, _listed(metadata.get(name)))) <= set(allowed.split(", ")):
            problems.append(f'"{name}" must be one of [{allowed}]')
    for name in ("base_model", "datasets", "models"):
        wrong = [value for value in _listed(metadata.get(name)) if not _REPOSITORY.fullmatch(str(value))]
        problems += [f'"{name}" with value "{value}" is not valid' for value in wrong]
    if not re.fullmatch(r"[a-z0-9.-]+", str(metadata.get("license_name", "none"))):
        problems.append('"license_name" must match /^[a-z0-9-.]+$/')
    return problems


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
