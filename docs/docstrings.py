"""Shows docstrings in Hugging Face's style as the site's own: types without marks, and names as code instead of links."""

import re
import textwrap
from typing import Any

from griffe import Class, Extension, Object


_NAME = re.compile(r"\[`~?([\w.]+)`\](?!\(|\[)")  # [`~transformers.Trainer`]
_ARGUMENT = re.compile(r"^(\s*[*\w]+ )\((.*)\):$", flags=re.MULTILINE)  # name (`int`, *optional*, defaults to `8`):
_DEFAULT = re.compile(r",? *\*optional\*(?:, defaults to `[^`]*`)?")  # the signature says so

_CALLED = ("__init__", "__call__")


class HuggingFaceStyle(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_class_members(self, *, cls: Class, **kwargs: Any) -> None:
        """Leave out the methods that Python calls by itself."""
        for name in [name for name in cls.members if name.startswith("__") and name not in _CALLED]:
            del cls.members[name]

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)


def plain(docstring: str) -> str:
    """Take Hugging Face's marks off a docstring."""
    return _NAME.sub(r"`\1`", _ARGUMENT.sub(_without_marks, _titled(docstring)))


def _titled(docstring: str) -> str:
    """Put `Args:` above arguments that have no title, as in the docstrings that `auto_docstring` completes."""
    first = _ARGUMENT.search(docstring)
    if first is None or first[1].startswith(" "):
        return docstring
    return f"{docstring[: first.start()]}Args:\n{textwrap.indent(docstring[first.start() :], '    ')}"


def _without_marks(argument: re.Match[str]) -> str:
    kind = _NAME.sub(r"\1", _DEFAULT.sub("", argument[2])).replace("`", "")
    return f"{argument[1]}({kind}):"
