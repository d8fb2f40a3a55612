"""The evaluation measures what it says, over files that are there."""

from __future__ import annotations

import json

import pytest
from evaluation.__main__ import QUESTIONS, ROOT, place
from evaluation.keywords import Keywords
from evaluation.metrics import files_of, mean, recall, reciprocal_rank


def test_every_question_names_files_of_this_repository() -> None:
    questions = json.loads(QUESTIONS.read_text())
    assert len({one["question"] for one in questions}) == len(questions) >= 30
    named = [file for one in questions for file in one["files"]]
    assert [file for file in named if not (ROOT / file).is_file()] == []


def test_a_file_stands_where_its_best_chunk_does() -> None:
    assert files_of(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_the_measures_of_a_small_example() -> None:
    # Two questions: found first and fourth of two files; not found at all.
    one, other = ["x", "p", "q", "y"], ["p", "q"]
    assert recall(one, ["x", "y"], 3) == 0.5
    assert recall(one, ["x", "y"], 4) == 1.0
    assert reciprocal_rank(one, ["x", "y"]) == 1.0
    assert reciprocal_rank(one, ["y"]) == 0.25
    assert reciprocal_rank(other, ["x"]) == recall(other, ["x"], 5) == 0.0
    assert mean([1.0, 0.0]) == 0.5
    assert (place(one, ["y"]), place(other, ["x"])) == ("  4", "  -")


def test_keywords_prefer_rare_words_and_leave_out_texts_without_any() -> None:
    texts = [
        "the upstream list",
        "a list of lists",
        "a file",
        "the readFile call",
        "upstream list upstream",
    ]
    keywords = Keywords(texts)
    assert keywords.search("Which upstream?", 5) == [4, 0]
    assert keywords.search("read", 5) == [3]
    assert keywords.search("nothing of this", 5) == []


@pytest.mark.parametrize("top", [1, 2])
def test_keywords_give_as_many_as_are_asked_for(top: int) -> None:
    assert len(Keywords(["list one", "list two", "three"]).search("list", top)) == top
