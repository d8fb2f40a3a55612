"""Through a store that gives back raw text: the reply is TEI's to the byte, odd floats included."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.proxy.conftest import Proxy, StartProxy
from tests.stand_ins.tei import StandInTei

ITEMS = st.integers(0, 30).map(lambda i: f"text {i}") | st.lists(
    st.integers(0, 5), min_size=1, max_size=3
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "normalize": st.sampled_from([True, False]),
        "truncate": st.sampled_from([True, False, None]),
        "truncation_direction": st.sampled_from(["Left", "Right", "left", "right"]),
        "dimensions": st.sampled_from([None, 1, 3, 8]),
        "prompt_name": st.sampled_from([None, "", "query"]),
    },
)


def test_the_vectors_hold_odd_floats() -> None:
    """Else the next test would show less than it says."""
    text = StandInTei().vector("a", {})
    for number in (b"-0.0", b"1e-7", b"1e-45", b"1.1754942e-38"):
        assert number in text


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch=st.lists(ITEMS, min_size=1, max_size=40), fields=FIELDS)
async def test_any_batch(
    start: StartProxy, tei: StandInTei, batch: list[object], fields: dict[str, object]
) -> None:
    proxy = await once(start)
    expected = [tei.vector(item, fields) for item in batch]
    status, vectors, headers = await proxy.embed(inputs=batch, **fields)
    assert status == 200
    assert vectors == expected
    hits, misses = (int(part.split("=")[1]) for part in headers["X-Cache"].split("; ")[1:])
    assert hits + misses == len(batch)


_proxies: dict[StartProxy, Proxy] = {}


async def once(start: StartProxy) -> Proxy:
    """Start one proxy for all examples, without L1, so that the store is asked each time."""
    if start not in _proxies:
        _proxies[start] = await start(memory=0, workers=2)
    return _proxies[start]
