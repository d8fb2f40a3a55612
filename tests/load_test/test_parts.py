"""The parts of the load test: what is drawn, when it is due, how replies and times are judged."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_app.commands.load_test.mix import Mix, generated, sizes_of
from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.replies import Check, WrongReply, check_embed, check_openai
from proxy_app.commands.load_test.tally import histogram, percentile

TEXTS = generated(1000, 5, 0)


def drawn(zipf: float, seed: int, count: int = 50_000) -> list[str]:
    mix = Mix(TEXTS, zipf=zipf, sizes=sizes_of("100"), seed=seed)
    return [text for _ in range(count // 100) for text in mix.batch()]


@pytest.mark.parametrize("zipf", [0.0, 0.7, 1.0, 1.5])
def test_the_mix_is_zipfs(zipf: float) -> None:
    """Every rank's count is within five standard deviations of what the law says."""
    counts = Counter(drawn(zipf, 7))
    whole = sum(1 / rank**zipf for rank in range(1, 1001))
    for rank in (1, 2, 3, 10, 30, 100, 1000):
        expected = 50_000 / rank**zipf / whole
        assert abs(counts[TEXTS[rank - 1]] - expected) <= 5 * math.sqrt(expected), rank


def test_a_seed_draws_the_same_again_and_another_others() -> None:
    assert drawn(1, 7, 1000) == drawn(1, 7, 1000) != drawn(1, 8, 1000)
    assert generated(3, 5, 1) == generated(3, 5, 1) != generated(3, 5, 2)


def test_sizes_are_equally_likely() -> None:
    mix = Mix(TEXTS, sizes=sizes_of("1,1, 8, 3-4"), seed=1)
    counts = Counter(len(mix.batch()) for _ in range(8000))
    assert set(counts) == {1, 3, 4, 8}
    for size, share in {1: 1 / 2, 8: 1 / 4, 3: 1 / 8, 4: 1 / 8}.items():
        assert abs(counts[size] - 8000 * share) < 5 * math.sqrt(8000 * share)


def test_arrivals_are_poissons_or_constant() -> None:
    plan = Plan("", rate=50, requests=20_000, warm_up=2, arrivals="poisson")
    gaps = [b - a for a, b in itertools.pairwise(plan.dues())]
    # The mean of an exponential is its deviation too; of a constant it is 0.
    assert statistics.fmean(gaps) == pytest.approx(0.02, rel=0.05)
    assert statistics.pstdev(gaps) == pytest.approx(0.02, rel=0.05)
    constant = list(replace(plan, arrivals="constant", requests=100).dues())
    assert constant == pytest.approx([number / 50 - 2 for number in range(200)])


def test_a_plan_ends_after_requests_or_seconds() -> None:
    plan = Plan("", rate=100, requests=50, seconds=1, warm_up=1, arrivals="constant")
    assert sum(due >= 0 for due in plan.dues()) == 50
    assert max(replace(plan, requests=1000).dues()) < 1
    with pytest.raises(ValueError, match="an end"):
        Plan("")


GOOD = b'{"object":"list","data":[{"index":0,"embedding":%b},{"index":1,"embedding":%b}]}'


@pytest.mark.parametrize(
    ("check", "body", "kind"),
    [
        (check_embed, b"[[1,2e-7],[-0.5,3]]", ""),
        (check_embed, b"[[1,2]]", "count"),
        (check_embed, b"[[1,2],[3,4],[5,6]]", "count"),
        (check_embed, b"[[1,2],[3]]", "vector"),
        (check_embed, b"[[],[]]", "vector"),
        (check_embed, b"[[1,2],[3,null]]", "vector"),
        (check_embed, b"[[1,2],null]", "vector"),
        (check_embed, b"[[1,2],[3,1e39]]", "vector"),
        (check_embed, b"<html>", "not-embeddings"),
        (check_embed, b"[[1,2],[3,4]", "not-embeddings"),
        (check_openai, GOOD % (b"[1,2]", b"[3,4]"), ""),
        (check_openai, GOOD % (b'"AACAPwAAAEA="', b'"AACAPwAAAEA="'), ""),
        (check_openai, GOOD % (b'"AACAPwAAAEA="', b'"AACAPwAAwH8="'), "vector"),  # NaN
        (check_openai, GOOD % (b'"AACAPwAAAEA="', b'"AACAPw=="'), "vector"),
        (check_openai, GOOD % (b'"AACAPwAAAEA="', b'"?"'), "vector"),
        (check_openai, (GOOD % (b"[1]", b"[2]")).replace(b":1,", b":0,"), "order"),
        (check_openai, b'{"data":[]}', "count"),
        (check_openai, b"[[1,2],[3,4]]", "not-embeddings"),
    ],
)
def test_a_reply_is_judged(check: Check, body: bytes, kind: str) -> None:
    if not kind:
        check(body, 2)
        return
    with pytest.raises(WrongReply) as wrong:
        check(body, 2)
    assert wrong.value.kind == kind


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= len(values) * percent - 1e-6
    assert sum(value < found for value in values) * 100 < len(values) * percent


@given(st.lists(st.floats(0, 1e4)))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    rows = histogram(sorted(values))
    assert sum(count for _, count in rows) == len(values)
    below = 0
    for bound, count in rows:
        below += count
        assert sum(value <= bound for value in values) == below
