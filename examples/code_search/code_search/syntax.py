"""Syntax trees by tree-sitter, whose grammars come with its language pack."""

from __future__ import annotations

import re
import time
from functools import cache
from typing import get_args

import tree_sitter
from tree_sitter_language_pack import SupportedLanguage, get_language

Node = tree_sitter.Node

#: Text beyond is not parsed: it takes a second a megabyte.
_MAX_CHARACTERS = 1_000_000
_MAX_SECONDS = 3.0
_PIECE_BYTES = 65536
_NAME_CHARACTERS = 80

_DEFINITION = re.compile(
    r"(function|method|class|struct|enum|union|trait|impl|interface|module|namespace|object"
    r"|constructor|macro|protocol|procedure|type|message|service|record|package|rule|contract)"
    r"(_\w*)?(definition|declaration|declarator|specifier|item|statement|spec|def)s?$"
    r"|^(FnProto|function|method|class|module|rule|mod_item|singleton_method|const_item|static_item)$"
)
#: The fields that lead from a definition to its name, by what grammars call them.
_TO_NAME = ("name", "declarator", "type", "target")
#: The fields that lead from something around a definition (decorators, export) to it.
_TO_DEFINITION = ("definition", "declaration")
_FUNCTIONS = ("arrow_function", "function_expression", "function", "class")
_IDENTIFIERS = ("identifier", "simple_identifier", "type_identifier", "IDENTIFIER")
_TASK = re.compile(rb"-\s+name:\s*[\"']?(.+?)[\"']?\s*(?:\n|$)")


@cache
def _language(name: str) -> tree_sitter.Language | None:
    return get_language(name) if name in get_args(SupportedLanguage) else None  # type: ignore[arg-type]


def parse(language: str, text: str) -> Node | None:
    """Return the root of a text's tree; None without a grammar, or where it takes too long."""
    grammar = _language(language)
    if grammar is None or len(text) > _MAX_CHARACTERS:
        return None
    end = time.monotonic() + _MAX_SECONDS
    content = text.encode("utf-8", "replace")
    try:
        # Only a text that is read piece by piece is given up when asked to.
        tree = tree_sitter.Parser(grammar).parse(
            lambda offset, _: content[offset : offset + _PIECE_BYTES],
            progress_callback=lambda *_: time.monotonic() > end,
        )
    except ValueError:
        return None  # stopped by the clock
    return tree.root_node


def rows(node: Node) -> tuple[int, int]:
    """Return a node's first and last row, from 0; one that ends with a newline ends before it."""
    first, (last, column) = node.start_point[0], node.end_point
    return first, max(first, last - 1 if column == 0 else last)


def comes_before(node: Node) -> bool:
    """Say whether a node belongs to the one after it: a comment, a decorator, an attribute."""
    return node.type.endswith("comment") or node.type in ("decorator", "attribute_item")


def holds_definitions(node: Node) -> bool:
    """Say whether a node is but a wrapper of what a YAML file lists."""
    return node.type in ("document", "block_node", "block_sequence")


def name_of(node: Node) -> str:
    """Return the name that a node defines; "" where it defines none."""
    if node.type == "section":  # of Markdown
        return _told(node.text).split("\n", 1)[0].strip("# ")[:_NAME_CHARACTERS]
    if node.type == "block_sequence_item":  # of YAML: a task of Ansible's, a step of CI
        task = _TASK.match(node.text or b"")
        return _told(task[1])[:_NAME_CHARACTERS] if task else ""
    for field in _TO_DEFINITION:
        inner = node.child_by_field_name(field)
        if inner is not None:
            return name_of(inner)
    if node.type in ("lexical_declaration", "variable_declaration", "type_declaration"):
        inner = node.named_children[0] if node.named_child_count else None
        value = inner and inner.child_by_field_name("value")
        if inner and (node.type == "type_declaration" or (value and value.type in _FUNCTIONS)):
            return _identifier(inner)
        return ""
    if node.type == "template_declaration":  # of C++
        return name_of(node.named_children[-1]) if node.named_child_count else ""
    return _identifier(node) if _DEFINITION.search(node.type) else ""


def _identifier(node: Node) -> str:
    found: Node | None = node
    for _ in range(10):  # a pointer to an array of functions: declarator in declarator
        inner = (
            next(filter(None, map(found.child_by_field_name, _TO_NAME)), None) if found else None
        )
        if inner is None:
            break
        found = inner
    if found == node:  # a grammar without fields
        found = next((one for one in node.children if one.type in _IDENTIFIERS), None)
    if found is None:
        return ""
    return " ".join(_told(found.text).split())[:_NAME_CHARACTERS]


def _told(text: bytes | None) -> str:
    return (text or b"").decode("utf-8", "replace")
