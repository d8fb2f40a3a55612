"""Chunks follow the code's structure, are small enough for the model, and lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from code_search.chunks import LIMIT, Chunk, about, cut
from code_search.cutter import Cutter
from code_search.files import File, Skipped, Text, read, walk
from code_search.settings import Settings
from code_search.source import Source, open_source

ROOT = Path(__file__).parents[3]


def chunks(language: str, text: str) -> list[Chunk]:
    return cut(File("a", language, len(text)), Text(text, committed=False))


def symbols(language: str, text: str) -> list[str]:
    return [chunk.symbol for chunk in chunks(language, text)]


def body(lines: int, line: str = "    total = total + 1  # and so on") -> str:
    return "\n".join([line] * lines)


def test_a_small_file_is_one_chunk() -> None:
    [chunk] = chunks("python", "\n\nimport os\n\n\ndef one():\n    pass\n\n")
    assert (chunk.start, chunk.end) == (3, 7)
    assert chunk.symbol == "one"
    assert chunk.text == "import os\n\n\ndef one():\n    pass"


def test_functions_stand_alone_with_what_is_written_above_them() -> None:
    text = f"import os\n\n# Why.\n@decorated\ndef one():\n{body(12)}\n\n\ndef two():\n{body(12)}\n"
    assert [(one.symbol, one.start, one.end) for one in chunks("python", text)] == [
        ("", 1, 1),
        ("one", 3, 17),
        ("two", 20, 32),
    ]


def test_methods_are_known_by_their_class() -> None:
    held = body(20, "        total = total + 1")
    text = f'class A:\n    """It."""\n\n    def one(self):\n{held}\n\n    def two(self):\n{held}\n'
    assert symbols("python", text) == ["A", "A.one", "A.two"]


def test_a_large_function_is_cut_between_its_statements() -> None:
    found = chunks("python", f"def one():\n{body(80)}\n")
    assert {one.symbol for one in found} == {"one"}
    assert all(len(one.text) <= LIMIT for one in found)
    assert [one.start for one in found[1:]] == [one.end + 1 for one in found[:-1]]


def test_without_a_grammar_lines_overlap() -> None:
    found = chunks("text", "\n".join(f"line {number} of a text" for number in range(1, 200)))
    assert len(found) > 3
    assert [one.start for one in found[1:]] == [one.end - 2 for one in found[:-1]]


def test_a_long_line_is_cut_between_words() -> None:
    found = chunks("markdown", "# Title\n\n" + "A sentence of seven words, no more. " * 100)
    assert all(len(one.text) <= LIMIT * 5 / 4 for one in found)
    assert {one.symbol for one in found} == {"Title"}
    assert {(one.start, one.end) for one in found[1:]} == {(3, 3)}
    assert "".join(one.text for one in found).count("sentence") == 100


PROGRAMS = {
    "javascript": (
        "export const add = (a, b) => {\n%s\n};\nclass A {\n  run() {\n%s\n  }\n}\n",
        "  a++;",
    ),
    "typescript": (
        "export function add(a: number) {\n%s\n}\nabstract class A { run() {\n%s\n} }\n",
        "  a++;",
    ),
    "go": ("package p\nfunc add() {\n%s\n}\nfunc (a *A) run() {\n%s\n}\n", "\ta++"),
    "rust": ("fn add() {\n%s\n}\nimpl A {\n  fn run() {\n%s\n  }\n}\n", "  a += 1;"),
    "java": ("class A {\n void add() {\n%s\n }\n void run() {\n%s\n }\n}\n", "  a++;"),
    "c": ("int *add(int a) {\n%s\n}\nvoid run(void) {\n%s\n}\n", "  a++;"),
    "cpp": ("template <class T> T add(T a) {\n%s\n}\nvoid A::run() {\n%s\n}\n", "  a++;"),
    "csharp": ("class A {\n void add() {\n%s\n }\n void run() {\n%s\n }\n}\n", "  a++;"),
    "ruby": ("def add\n%s\nend\nclass A\n  def run\n%s\n  end\nend\n", "  a += 1"),
    "php": ("<?php\nfunction add() {\n%s\n}\nclass A { function run() {\n%s\n} }\n", "  $a++;"),
    "kotlin": ("fun add() {\n%s\n}\nclass A { fun run() {\n%s\n} }\n", "  a++"),
    "swift": ("func add() {\n%s\n}\nclass A { func run() {\n%s\n} }\n", "  a += 1"),
    "scala": ("object A {\n def add() = {\n%s\n }\n def run() = {\n%s\n }\n}\n", "  a += 1"),
    "bash": ("add() {\n%s\n}\nfunction run {\n%s\n}\n", "  echo a"),
    "lua": ("function add()\n%s\nend\nfunction run()\n%s\nend\n", "  a = a + 1"),
    "zig": ("fn add() void {\n%s\n}\nfn run() void {\n%s\n}\n", "  a += 1;"),
}


@pytest.mark.parametrize("language", PROGRAMS)
def test_functions_of_many_languages_stand_alone(language: str) -> None:
    program, line = PROGRAMS[language]
    held = body(1200 // (len(line) + 1), line)  # too much for one chunk
    found = chunks(language, program % (held, held))
    named = " ".join(one.symbol for one in found)
    assert "add" in named
    assert "run" in named


def test_sections_and_tasks() -> None:
    page = f"# One\n\n{body(20, 'Some text.')}\n\n## Two\n\n{body(80, 'More text.')}\n"
    assert symbols("markdown", page) == ["One", "One.Two"]
    tasks = "".join(f"- name: Task {one}\n{body(15, '  key: value')}\n" for one in "ab")
    assert symbols("yaml", tasks) == ["Task a, Task b"]
    tasks = "".join(f"- name: Task {one}\n{body(40, '  key: value')}\n" for one in "ab")
    assert symbols("yaml", tasks) == ["Task a", "Task b"]


HOSTILE = {
    "deep brackets": ("json", "[\n" * 50_000 + "]\n" * 50_000),
    "deep lines": ("python", "\n".join(" " * depth + "if x:" for depth in range(600))),
    "deep calls": ("javascript", "f(\n" * 20_000),
    "open strings": ("python", "'''\n" * 10_001),
    "no text of its language": ("rust", "\x1b[31m<script>\ufffd \u202e\n" * 5000),
    "many rules": ("css", ("a{b:c}" * 100 + "\n") * 1000),
    "many brackets": ("cpp", "template<\n" * 20_000),
    "one character": ("html", "<"),
    "sections": ("markdown", "".join("#" * (n % 6 + 1) + f" T{n}\n\ntext\n" for n in range(2000))),
    "deep quotes": ("markdown", ">" * 1000 + " text\n" * 10),
    "deep elements": ("html", "<div>\n" * 20_000),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_text_is_cut_all_the_same(
    kind: str, settings: Settings, tmp_path: Path
) -> None:
    """As indexing does it: in a process of its own, which the deep quotes end."""
    language, text = HOSTILE[kind]
    (tmp_path / "a").write_text(text)
    async with Cutter(Source(tmp_path, "name"), settings) as cutter:
        found = await cutter.cut(File("a", language, len(text)))
    assert isinstance(found, list)
    assert all(len(one.text) <= 2 * LIMIT for one in found)
    assert_complete(text, found)


def assert_complete(text: str, found: list[Chunk]) -> None:
    """Every line that is not blank is in a chunk, where the chunk says it is."""
    lines = text.split("\n")
    covered = {number for one in found for number in range(one.start, one.end + 1)}
    missing = [n for n, line in enumerate(lines, 1) if line.strip() and n not in covered]
    assert not missing
    for one in found:
        assert one.text in "\n".join(lines[one.start - 1 : one.end])


async def test_this_repository_is_cut_completely(settings: Settings) -> None:
    counted = 0
    async with open_source(str(ROOT), settings) as source:
        for file in walk(source, settings):
            text = read(source, file, settings) if isinstance(file, File) else file
            if isinstance(file, Skipped) or isinstance(text, Skipped):
                continue
            found = cut(file, text)
            assert_complete(text.content, found)
            counted += len(found)
    assert counted > 1000


def test_the_path_is_embedded_in_one_line() -> None:
    [chunk] = cut(File("a\nb/<script>.py", "python", 4), Text("pass", committed=False))
    assert chunk.path == "a\nb/<script>.py"
    assert chunk.embedded == "a b/<script>.py a b script py\npass"


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ('#!/usr/bin/env python3\n"""Serves it: `a.py`.\n\nMore."""\n', "Serves it: `a.py`."),
        ("'''One.'''\nimport os\n", "One."),
        ("---\n# Starts it, and\n# looks.\n\n# More.\n- name: a\n", "Starts it, and looks."),
        ("<?php\n\n// The router.\nclass A {}\n", "The router."),
        ("/* Keys */\nint a;\n", "Keys"),
        ("# Title\n\nText\n", "Title"),
        ("{# managed #}\nserver {\n", "managed"),
        ("import os\n# Late.\n", ""),
        ("// Copyright the authors\n// SPDX-License-Identifier: MIT\npackage a\n", ""),
    ],
)
def test_how_a_file_introduces_itself_stands_before_each_of_its_chunks(
    text: str, summary: str
) -> None:
    assert about(text) == summary
    assert all(
        chunk.about == summary and summary in chunk.embedded for chunk in chunks("text", text)
    )
