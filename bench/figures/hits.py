"""L1 hits at the worker's own socket, beside nginx serving the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import orjson

from bench import servers, wrk
from bench.figure import Figure, side_by_side
from tests.stand_ins.process import free_port

#: The better of two ways in which nginx serves the very bytes: a file, and its own cache.
_NGINX = """\
sendfile on; tcp_nopush on; open_file_cache max=100;
default_type application/json;
proxy_cache_path {folder}/cache keys_zone=bench:10m;
server {
    listen 127.0.0.1:%(port)d;
    location = /static { alias %(file)s; }
    location = /cached {
        proxy_pass %(upstream)s/embed;
        proxy_cache bench;
        proxy_cache_methods POST;
        proxy_cache_key $request_body;
        proxy_cache_valid 200 1h;
        client_body_buffer_size 1m;
    }
}
"""
_KEY = "a key of the benchmark's"


def measure() -> Iterator[Figure]:
    """Measure hits of 1 and of 32 texts, and OpenAI's base64."""
    with servers.instances() as [upstream], servers.proxy(upstream) as proxy:
        one = [orjson.dumps({"inputs": "a cached text"})]
        many = [orjson.dumps({"inputs": [f"cached text {i}" for i in range(32)]})]
        yield against_nginx(proxy, one, "L1 hits, 1 text: requests/s over nginx", 0.25)
        yield against_nginx(proxy, many, "L1 hits, 32 texts: requests/s over nginx", 0.6)
        base64 = [orjson.dumps({"input": "a cached text", "encoding_format": "base64"})]
        ratio, openai, tei = side_by_side(
            lambda: wrk.run(proxy.url + "/v1/embeddings", base64).rate,
            lambda: wrk.run(proxy.url + "/embed", one).rate,
        )
        made_of = f"{openai:.0f}/s against {tei:.0f}/s"
        yield Figure("base64 (OpenAI) L1 hits over /embed L1 hits, 1 text", ratio, 0.8, made_of)
        yield with_a_key(upstream, one)


def with_a_key(upstream: str, body: list[bytes]) -> Figure:
    """Measure hits on an endpoint that needs an API key beside one that needs none."""
    keys = f"bench:{hashlib.sha256(_KEY.encode()).hexdigest()}"
    with servers.proxy(upstream, api_keys=keys) as guarded, servers.proxy(upstream) as free:
        headers = {"Authorization": f"Bearer {_KEY}"}
        ratio, with_it, without = side_by_side(
            lambda: wrk.run(guarded.url + "/embed", body, headers=headers).rate,
            lambda: wrk.run(free.url + "/embed", body).rate,
        )
    made_of = f"{with_it:.0f}/s against {without:.0f}/s"
    return Figure("L1 hits with an API key over those without, 1 text", ratio, 0.9, made_of)


def against_nginx(proxy: servers.Proxy, body: list[bytes], name: str, limit: float) -> Figure:
    """Measure a hit beside the better of nginx's two ways."""
    url = proxy.url + "/embed"
    servers.fetch(url, orjson.loads(body[0]))
    headers, reply = servers.fetch(url, orjson.loads(body[0]))
    if not headers["X-Cache"].startswith("hit"):
        raise SystemExit(f"bench: no hit, but {headers['X-Cache']}")
    port = free_port()
    with servers.file_of(reply) as file:
        given = {"port": port, "file": file, "upstream": proxy.url}
        with servers.nginx(_NGINX % given):
            static = f"http://127.0.0.1:{port}/static"
            cached = f"http://127.0.0.1:{port}/cached"
            ways: dict[str, Callable[[], float]] = {
                "a static file": lambda: wrk.run(static).rate,
                "its cache": lambda: wrk.run(cached, body).rate,
            }
            rates = {name: way() for name, way in ways.items()}
            better = max(rates, key=lambda way: rates[way])
            ratio, ours, theirs = side_by_side(lambda: wrk.run(url, body).rate, ways[better])
    made_of = f"{ours:.0f}/s against {theirs:.0f}/s of nginx ({better})"
    return Figure(name, ratio, limit, made_of)
