"""Links lead to known hosts only, and carry nothing but what they should."""

from __future__ import annotations

import pytest
from code_search.permalink import permalink, web_address

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("remote", "link"),
    [
        ("https://github.com/o/r.git", f"https://github.com/o/r/blob/{COMMIT}/a%20b/c.py#L3-L9"),
        ("git@github.com:o/r.git", f"https://github.com/o/r/blob/{COMMIT}/a%20b/c.py#L3-L9"),
        (
            "ssh://git@gitlab.com:22/o/g/r",
            f"https://gitlab.com/o/g/r/-/blob/{COMMIT}/a%20b/c.py#L3-9",
        ),
        (
            "https://user:s3cret@codeberg.org/o/r/",
            f"https://codeberg.org/o/r/src/commit/{COMMIT}/a%20b/c.py#L3-L9",
        ),
        (
            "https://www.bitbucket.org/o/r",
            f"https://bitbucket.org/o/r/src/{COMMIT}/a%20b/c.py#lines-3:9",
        ),
    ],
)
def test_known_hosts(remote: str, link: str) -> None:
    assert permalink(web_address(remote), COMMIT, "a b/c.py", 3, 9) == link


@pytest.mark.parametrize(
    "remote",
    [
        "https://example.org/o/r",
        "https://github.com.example.org/o/r",
        "https://github.com",
        "https://github.com/o",
        "https://github.com/o/../r",
        "https://github.com/o/<script>",
        "javascript://github.com/o/r",
        "/home/o/r",
        "file:///o/r",
        "ext::sh -c o/r",
        "https://[::1/o/r",
        "",
    ],
)
def test_unknown_hosts_have_none(remote: str) -> None:
    assert web_address(remote) == ""


def test_nothing_else_of_an_address_is_kept() -> None:
    assert web_address("https://a:b@github.com/o/r.git?c=d#e") == "https://github.com/o/r"


def test_without_a_commit_there_is_none() -> None:
    for commit in ("", "main", COMMIT[:-1], COMMIT + '"'):
        assert permalink("https://github.com/o/r", commit, "a", 1, 2) == ""
    assert permalink("", COMMIT, "a", 1, 2) == ""


def test_a_path_cannot_leave_its_place() -> None:
    link = permalink("https://github.com/o/r", COMMIT, 'a"><script>#?é\n.py', 1, 2)
    assert link.endswith("/a%22%3E%3Cscript%3E%23%3F%C3%A9%0A.py#L1-L2")
