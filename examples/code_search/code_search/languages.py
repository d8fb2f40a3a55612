"""The languages of files, by name or first line; each is tree-sitter's name of its grammar."""

from __future__ import annotations

import re

#: What is not a grammar's name is cut by lines.
_SUFFIXES = {
    "bash": "sh bash zsh ksh bats",
    "c": "c h",
    "clojure": "clj cljs cljc edn",
    "cmake": "cmake",
    "commonlisp": "lisp cl",
    "cpp": "cc cpp cxx hh hpp hxx ino cu cuh",
    "csharp": "cs",
    "css": "css",
    "dart": "dart",
    "elixir": "ex exs",
    "elm": "elm",
    "erlang": "erl hrl",
    "fortran": "f f90 f95",
    "go": "go",
    "graphql": "graphql gql",
    "groovy": "groovy gradle",
    "haskell": "hs",
    "hcl": "hcl tf tfvars",
    "html": "html htm",
    "ini": "ini cfg conf properties service socket timer target",
    "java": "java",
    "javascript": "js jsx mjs cjs",
    "json": "json jsonc json5 webmanifest",
    "julia": "jl",
    "kotlin": "kt kts",
    "less": "less",
    "lua": "lua",
    "make": "mk",
    "markdown": "md markdown mdx",
    "nix": "nix",
    "objc": "m mm",
    "ocaml": "ml mli",
    "perl": "pl pm",
    "php": "php",
    "powershell": "ps1 psm1",
    "proto": "proto",
    "python": "py pyi pyw",
    "r": "r",
    "rst": "rst",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "scala": "scala sc",
    "scss": "scss",
    "sql": "sql",
    "svelte": "svelte",
    "swift": "swift",
    "template": "j2 jinja jinja2 tmpl tpl erb",
    "text": "txt text adoc org",
    "toml": "toml",
    "tsx": "tsx",
    "typescript": "ts mts cts",
    "vim": "vim",
    "vue": "vue",
    "xml": "xml xsd xsl svg",
    "yaml": "yaml yml",
    "zig": "zig",
}
_NAMES = {
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "makefile": "make",
    "gnumakefile": "make",
    "cmakelists.txt": "cmake",
    "gemfile": "ruby",
    "rakefile": "ruby",
    "vagrantfile": "ruby",
    "jenkinsfile": "groovy",
    "readme": "text",
    "license": "text",
    "changelog": "text",
    "contributing": "text",
    ".gitignore": "text",
    ".dockerignore": "text",
    ".editorconfig": "ini",
    ".gitattributes": "text",
}
_BY_SUFFIX = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_INTERPRETERS = {
    "python": "python",
    "sh": "bash",
    "bash": "bash",
    "dash": "bash",
    "zsh": "bash",
    "node": "javascript",
    "perl": "perl",
    "ruby": "ruby",
    "lua": "lua",
    "php": "php",
}
_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+)*)?(?:\S*/)?([a-z]+)")


def language_of(name: str) -> str:
    """Return the language of a file by its name; "" where that does not tell."""
    name = name.lower()
    if name in _NAMES:
        return _NAMES[name]
    stem, _, suffix = name.rpartition(".")
    return _BY_SUFFIX.get(suffix, "") if stem else ""


def language_of_shebang(head: bytes) -> str:
    """Return the language of a program by the interpreter that its first line names."""
    found = _SHEBANG.match(head)
    return _INTERPRETERS.get(found[1].decode(), "") if found else ""


def kinds() -> dict[str, list[str]]:
    """Return every language with the suffixes and names of its files."""
    found: dict[str, list[str]] = {
        name: ["." + one for one in suffixes.split()] for name, suffixes in _SUFFIXES.items()
    }
    for name, language in _NAMES.items():
        found.setdefault(language, []).append(name)
    return found
