"""API keys: who may ask, who is counted, and what TEI gets to see of them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from library import embedrack_ask
from proxy_app.settings import Settings, SettingsError
from tests.faults.conftest import gauges
from tests.proxy.conftest import Proxy, StartProxy

ALICE, BOB, ADMIN = "alice's key", "bob's key", "the administrator's"
NAMES = ("alice", "bob", "admin")


def hashed(**keys: str) -> str:
    """Write the setting for some keys."""
    return " ".join(f"{n}:{hashlib.sha256(key.encode()).hexdigest()}" for n, key in keys.items())


async def status(proxy: Proxy, header: str = "", path: str = "/embed") -> int:
    headers = {"Authorization": header} if header else {}
    body = {"inputs": "a"}
    async with proxy.session.post(proxy.url + path, json=body, headers=headers) as reply:
        if reply.status == 401:
            assert await reply.read() == b""
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        return reply.status


async def test_only_those_with_a_key_are_answered(start: StartProxy) -> None:
    proxy = await start(api_keys=hashed(alice=ALICE, bob=BOB), admin_key=ADMIN)
    assert await status(proxy, f"Bearer {ALICE}") == 200
    assert await status(proxy, f"bearer {BOB}") == 200
    assert await status(proxy, f"Bearer {BOB}") == 200
    assert await status(proxy, f"Bearer {ADMIN}") == 200
    for wrong in ("", f"Bearer {ALICE}x", "Bearer", f"Basic {ALICE}", "Bearer k\u00e9y"):
        assert await status(proxy, wrong) == 401, wrong
    for path in ("/tokenize", "/info", "/v1/embeddings"):
        assert await status(proxy, path=path) == 401
    assert await status(proxy, f"Bearer {ALICE}", "/admin/purge") == 401
    for path in ("/health", "/livez", "/readyz"):
        assert (await proxy.get(path))[0] == 200
    _, text = await proxy.get("/metrics")
    assert 'embedrack_key_requests_total{name="alice"} 2.0' in text
    assert 'embedrack_key_requests_total{name="bob"} 2.0' in text
    assert 'embedrack_key_requests_total{name="admin"} 1.0' in text
    assert 'embedrack_requests_total{code="401",route="other"}' in text
    assert ALICE not in proxy.log.decode()


async def test_a_key_does_not_keep_from_the_fast_lane(start: StartProxy) -> None:
    proxy = await start(api_keys=hashed(alice=ALICE, bob=BOB), admin_key=ADMIN)
    assert await status(proxy, f"Bearer {ALICE}") == 200  # a miss
    for _ in range(2):
        for key in (ALICE, BOB, ADMIN):
            assert await status(proxy, f"Bearer {key}") == 200
        for wrong in ("", f"Bearer {ALICE}x", f"Basic {ALICE}"):
            assert await status(proxy, wrong) == 401
    seen = await gauges(proxy)
    counts = {name: seen[f'embedrack_key_requests_total{{name="{name}"}}'] for name in NAMES}
    assert counts == {"alice": 3, "bob": 2, "admin": 2}
    assert seen["embedrack_lane_requests_total"] == 6
    assert seen['embedrack_requests_total{code="401",route="other"}'] == 6


async def test_where_no_key_is_needed_one_that_comes_costs_nothing(start: StartProxy) -> None:
    """OpenAI's clients always send one."""
    proxy = await start()
    for key in ("a", "b", "b"):
        assert await status(proxy, f"Bearer {key}") == 200
    assert (await gauges(proxy))["embedrack_lane_requests_total"] == 2


async def test_tei_never_sees_a_key_of_ours(start: StartProxy) -> None:
    proxy = await start(api_keys=hashed(alice=ALICE), upstream_api_key="tei's own")
    assert await told_to_tei(proxy, f"Bearer {ALICE}") == "Bearer tei's own"


async def test_without_keys_everybody_is_answered_and_nobody_administers(start: StartProxy) -> None:
    proxy = await start()
    assert await status(proxy) == 200
    assert await told_to_tei(proxy, "Bearer tei's own") == "Bearer tei's own"
    async with proxy.session.post(proxy.url + "/admin/purge", json={"all": True}) as reply:
        assert reply.status == 404
        assert "EMBEDRACK_ADMIN_KEY" in await reply.text()


async def test_the_hosts_verification_has_a_key(start: StartProxy, tmp_path: Path) -> None:
    proxy = await start(api_keys=hashed(alice=ALICE), admin_key=ADMIN)
    assert await told_to_tei(proxy, f"Bearer {ADMIN}") == ""
    settings = tmp_path / "proxy.env"
    settings.write_text(f'EMBEDRACK_PORT="1"\nEMBEDRACK_ADMIN_KEY="{ADMIN}"\n')
    with pytest.raises(embedrack_ask.Unwell, match="401"):
        await asyncio.to_thread(embedrack_ask.ask, proxy.url, {})
    headers = embedrack_ask.headers_of(settings.read_text())
    reply = await asyncio.to_thread(embedrack_ask.ask, proxy.url, headers)
    assert reply["dimension"] == 8


async def told_to_tei(proxy: Proxy, header: str) -> str:
    """Return the Authorization header that TEI's own route was asked with."""
    headers = {"Authorization": header}
    async with proxy.session.post(proxy.url + "/similarity", json={}, headers=headers) as reply:
        assert reply.status == 200
        return reply.headers["x-authorization"]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("API_KEYS", "alice", "NAME:SHA256"),
        ("API_KEYS", f"alice:{'0' * 63}", "NAME:SHA256"),
        ("API_KEYS", f"a:{'0' * 64} a:{'1' * 64}", "once"),
        ("API_KEYS", f"admin:{'0' * 64}", "EMBEDRACK_ADMIN_KEY"),
        ("ADMIN_KEY", "short", "16 characters"),
    ],
)
def test_wrong_keys_are_refused_and_not_shown(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as refused:
        Settings.from_environment({"EMBEDRACK_" + name: value})
    assert value not in str(refused.value)


def test_a_hash_hides_in_repr() -> None:
    keys = Settings.from_environment({"EMBEDRACK_API_KEYS": hashed(alice=ALICE)}).api_keys
    assert repr(keys) == "'alice:…'"
