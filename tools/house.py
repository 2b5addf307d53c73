"""Figures of the code base: size, public names, length of functions, `Any`, and the language of its prose.

    python tools/house.py            # the figures of src/
    python tools/house.py --list     # also the place of each opener, long function and banned word

The language rules: a docstring opens with an imperative or a noun phrase, an argument's description with a noun phrase, and a
few words that readers of this field would have to translate are not used. `tests/test_language.py` holds the limits.
"""

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).parent.parent
CODE = ("src", "trainers", "datasets_builders", "benchmarks", "tools", "tests")
MAX_FUNCTION_LINES = 40

Place = tuple[Path, int, str]  # file, line, text
Function = ast.FunctionDef | ast.AsyncFunctionDef

_CLAUSE = re.compile(r"(What|How|Whether|Which|Where|Whose|Whom|Who|Why|That|When)\b")
_ARGUMENT = re.compile(r"^ *\w+ \((.*)\):\n +(.+)", re.MULTILINE)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTIONS)
_PROSE = (
    (tokenize.COMMENT, tokenize.STRING, tokenize.FSTRING_MIDDLE)
    if hasattr(tokenize, "FSTRING_MIDDLE")
    else (
        tokenize.COMMENT,
        tokenize.STRING,
    )
)

# The words, and beside each its replacement. Identifiers are not prose: "tell" in a name is not found.
BANNED = {
    r"nobody|whoever|somebody": "a passive, or the role",
    r"(told|tells)(?! (\w+ )?(apart|from))": "given, raised, logged or documented",
    r"verbs?": "command",
    r"in pieces": "sharded or chunked",
    r"without a word": "silently",
    r"for want of": "for lack of",
    r"(is|are|was|were|be|still|stay|stays|answered) right": "correct",
    r"right (answers?|options?|letters?|states?|ones?)": "correct",
}
# Prompts of models and their parsers: other words would be another experiment.
EXEMPT = ("evaluation/judges.py", "evaluation/scorers/option.py", "thought_video/prompt.py", "tools/house.py")
_BANNED = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)


def python_files(*folders: str) -> list[Path]:
    """List the Python files of some folders of the repository."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def opening_clauses(files: list[Path]) -> tuple[list[Place], int]:
    """Find the docstrings that open with a relative clause; also return the number of docstrings."""
    texts = [(file, line, text) for file in files for line, text in docstrings(ast.parse(file.read_text()))]
    return [(file, line, text.partition("\n")[0]) for file, line, text in texts if _CLAUSE.match(text)], len(texts)


def argument_clauses(files: list[Path]) -> tuple[list[Place], int]:
    """Find the arguments whose description opens with a relative clause; also return the number of arguments."""
    texts = [
        (file, line, match)
        for file in files
        for line, text in docstrings(ast.parse(file.read_text()))
        for match in _ARGUMENT.finditer(text)
    ]
    found = [(file, line, match[2]) for file, line, match in texts if _CLAUSE.match(match[2]) and not _is_flag(match)]
    return found, len(texts)


def _is_flag(match: re.Match[str]) -> bool:
    """`Whether ...` is the idiom of Hugging Face for arguments that are True or False."""
    return "bool" in match[1] and match[2].startswith("Whether")


def banned_words(files: list[Path]) -> list[Place]:
    """Find the banned words in comments, docstrings and messages of Python files, and in the text of any other file."""
    return [
        (file, line, match[0])
        for file in files
        if not str(file).endswith(EXEMPT)
        for line, text in prose(file)
        for match in _BANNED.finditer(re.sub(r"`[^`]*`", "", text))
    ]


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of what is written for people in a file."""
    if file.suffix != ".py":
        yield from enumerate(file.read_text().splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type in _PROSE:
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def long_functions(files: list[Path]) -> list[Place]:
    """Find the functions with more than 40 lines, not counting the docstring."""
    return [
        (file, function.lineno, f"{function.name}, {num_lines(function)} lines")
        for file in files
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, _FUNCTIONS) and num_lines(function) > MAX_FUNCTION_LINES
    ]


def num_lines(function: Function) -> int:
    """Length of a function without its docstring."""
    first = function.body[0] if ast.get_docstring(function) else None
    documented = 0 if first is None else (first.end_lineno or first.lineno) - first.lineno + 1
    return (function.end_lineno or function.lineno) - function.lineno + 1 - documented


def any_parameters(files: list[Path]) -> tuple[list[Place], int]:
    """Find the parameters that are annotated as `Any`; also return the number of annotated parameters."""
    parameters = [
        (file, node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.arg) and node.annotation is not None
    ]
    found = [
        (file, node.lineno, node.arg) for file, node in parameters if ast.unparse(node.annotation or node) == "Any"
    ]
    return found, len(parameters)


def public_names(files: list[Path]) -> list[Place]:
    """List the functions and classes at the top of a module whose name has no underscore before it."""
    return [
        (file, node.lineno, node.name)
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, (ast.ClassDef, *_FUNCTIONS)) and not node.name.startswith("_")
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Print figures of the code base.")
    parser.add_argument("folders", nargs="*", default=["src"], help="Folders to measure, by default src.")
    parser.add_argument("--list", action="store_true", help="Print the place of each finding.")
    options = parser.parse_args()
    files = python_files(*options.folders)
    shares = {
        "docstrings that open with a relative clause": opening_clauses(files),
        "arguments described by a relative clause": argument_clauses(files),
        "parameters annotated as Any": any_parameters(files),
    }
    lists = {f"functions over {MAX_FUNCTION_LINES} lines": long_functions(files), "banned words": banned_words(files)}
    print(f"{'files':<48}{len(files):>8,}")
    print(f"{'lines':<48}{sum(len(file.read_text().splitlines()) for file in files):>8,}")
    print(f"{'public names':<48}{len(public_names(files)):>8,}")
    for title, (found, count) in shares.items():
        print(f"{title:<48}{len(found):>8,} of {count:,} ({100 * len(found) / max(count, 1):.1f} %)")
    for title, found in lists.items():
        print(f"{title:<48}{len(found):>8,}")
    if options.list:
        for file, line, text in [place for found, _ in shares.values() for place in found] + sum(lists.values(), []):
            print(f"{file.relative_to(ROOT)}:{line}: {text}")


if __name__ == "__main__":
    main()
