"""Code in colours: Pygments' spans around escaped text, for light and dark pages."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePosixPath

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class_for_filename, get_lexer_by_name
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

_SCOPE = ".cs-code"
#: Names of the languages here that Pygments calls otherwise.
_ALIASES = {"commonlisp": "common-lisp", "template": "jinja"}


def code_html(text: str, path: str, language: str, start: int) -> str:
    """Return lines of a file as HTML, numbered from ``start``; all of the text is escaped."""
    formatter = HtmlFormatter(linenos="inline", linenostart=start, cssclass=_SCOPE[1:])
    # The first blank lines of a chunk count, or its numbers would be wrong.
    lexer = _lexer(PurePosixPath(path).name, language)
    return str(highlight(text.rstrip("\n"), lexer, formatter))


def stylesheet() -> str:
    """Return the colours of both schemes; Gradio marks the dark one by a class of the body."""
    rules = []
    for style, scope in (("default", _SCOPE), ("github-dark", f".dark {_SCOPE}")):
        formatter = HtmlFormatter(style=style)
        # Not its rules for line numbers, which hold for the whole page.
        rules += formatter.get_background_style_defs(scope)
        rules += formatter.get_token_style_defs(scope)
    return "\n".join(rules)


@lru_cache(256)
def _lexer(name: str, language: str) -> Lexer:
    """Choose by the file's name, without a template's suffix, else by the language."""
    options = {"stripnl": False, "ensurenl": False}
    found = find_lexer_class_for_filename(name.removesuffix(".j2"))
    if found is not None:
        return found(**options)
    try:
        return get_lexer_by_name(_ALIASES.get(language, language), **options)
    except ClassNotFound:
        return TextLexer(**options)
