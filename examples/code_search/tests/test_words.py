"""Identifiers are found whole and in parts."""

from __future__ import annotations

from code_search.words import question, weights, words


def test_identifiers_in_parts() -> None:
    assert list(words("def parseHTTPHeaders(max_size2)")) == [
        *("def", "parsehttpheaders", "pars", "http", "header"),
        *("max_size2", "max", "siz", "2"),
    ]


def test_common_words_say_nothing() -> None:
    assert list(words("where is the list written to?")) == ["list", "written"]


def test_a_question_meets_what_shares_its_words() -> None:
    asked = question("upstream lists")
    assert set(asked) <= set(weights("the list of upstream servers"))
    assert not set(asked) & set(weights("nothing of it"))


def test_rare_repetition_counts_less_and_less() -> None:
    once, often = (max(weights("word " * count).values()) for count in (1, 50))
    assert once < often < 2.2
