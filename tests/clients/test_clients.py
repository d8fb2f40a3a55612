"""Every client that people use gets the embedder's own vectors, cold, warm and mixed.

``pytest tests/clients -rP`` prints a line for each: what came from the cache in each of the three.
"""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.clients.conftest import Libraries
from tests.clients.drivers import CLIENTS
from tests.stack.conftest import post
from tests.stack.test_exact import bits

#: Asks with token ids of another vocabulary, whose vectors are not the texts'.
WITH_IDS = "langchain_openai_ids"
#: Real TEI's vectors differ in their last bits with the batch, the embedder's do not.
LAST_BITS = 1e-6


def inputs(url: str) -> dict[str, float]:
    """Return how many inputs the proxy has answered, by where from."""
    with urllib.request.urlopen(url + "/metrics") as reply:
        lines = reply.read().decode().splitlines()
    counts = {"hit": 0.0, "miss": 0.0}
    for line in lines:
        if line.startswith("embedrack_inputs_total{"):
            name, value = line.rsplit(" ", 1)
            counts["hit" if "hit" in name else "miss"] += float(value)
    return counts


class Counted:
    """The inputs answered since it was made, or last asked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = inputs(url)

    def since(self) -> tuple[float, float]:
        """Return hits and misses."""
        before, self._before = self._before, inputs(self._url)
        return self._before["hit"] - before["hit"], self._before["miss"] - before["miss"]


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != WITH_IDS])
def test_client(libraries: Libraries, embedder_url: str, proxy_url: str, client: str) -> None:
    texts = [f"{client} asks", "of a 東京 " + client, client + " " + "word " * 400]
    count = Counted(proxy_url)
    cold = libraries.embed(client, proxy_url, texts)
    seen = [count.since()]
    warm = libraries.embed(client, proxy_url, texts)
    seen.append(count.since())
    mixture = [texts[1], f"{client} once more", texts[0], texts[1]]
    mixed = libraries.embed(client, proxy_url, mixture)
    seen.append(count.since())
    print(f"{client:22} hits, misses: cold {seen[0]}, warm {seen[1]}, mixed {seen[2]}")
    assert seen == [(0, 3), (3, 0), (3, 1)]
    assert bits(warm) == bits(cold)
    assert bits([mixed[0], mixed[2], mixed[3]]) == bits([cold[1], cold[0], cold[1]])
    status, direct, _ = post(embedder_url + "/embed", {"inputs": [*texts, mixture[1]]})
    assert status == 200
    for ours, theirs in zip([*cold, mixed[1]], direct, strict=True):
        assert ours == pytest.approx(theirs, rel=0, abs=LAST_BITS)


def test_ids_of_openais_vocabulary_are_taken_as_tei_does(
    libraries: Libraries, embedder_url: str, proxy_url: str
) -> None:
    """LangChain's default. Whatever those ids mean to this model, the vector is TEI's."""
    [vector] = libraries.embed(WITH_IDS, proxy_url, ["hello"])
    status, reply, _ = post(embedder_url + "/v1/embeddings", {"input": [[15339]]})
    assert status == 200
    assert vector == pytest.approx(reply["data"][0]["embedding"], rel=0, abs=LAST_BITS)
    assert bits(libraries.embed(WITH_IDS, proxy_url, ["hello"])) == bits([vector])


def test_ids_that_would_kill_tei_are_refused_with_the_remedy(
    libraries: Libraries, proxy_url: str
) -> None:
    answer = libraries.answer(WITH_IDS, proxy_url, ["nginx"])
    assert "check_embedding_ctx_length=False" in answer["error"]


def test_dify(embedder_url: str, proxy_url: str) -> None:
    """It reads the model's kind from /info, counts with /tokenize, embeds without a model."""
    with urllib.request.urlopen(proxy_url + "/info") as reply:
        info = json.load(reply)
    assert "embedding" in info["model_type"]
    texts = ["dify asks", "for these"]
    status, tokens, _ = post(proxy_url + "/tokenize", {"inputs": texts})
    assert status == 200
    cold = post(proxy_url + "/v1/embeddings", {"input": texts})
    warm = post(proxy_url + "/v1/embeddings", {"input": texts})
    direct = post(embedder_url + "/v1/embeddings", {"input": texts})
    assert cold[:2] == warm[:2] == direct[:2]
    assert warm[2]["X-Cache"] == "hit; hits=2; misses=0"
    assert warm[1]["usage"]["total_tokens"] == sum(map(len, tokens))
    rerank = {"query": "a", "texts": ["b"]}
    assert post(proxy_url + "/rerank", rerank)[:2] == post(embedder_url + "/rerank", rerank)[:2]


def test_open_webui(embedder_url: str, proxy_url: str) -> None:
    for texts in (["webui asks"], ["webui asks"], ["webui asks", "and asks again"]):
        body = {"input": texts, "model": "sentence-transformers/all-MiniLM-L6-v2"}
        ours = post(proxy_url + "/embeddings", body)
        assert ours[:2] == post(embedder_url + "/embeddings", body)[:2]
    assert ours[2]["X-Cache"] == "partial; hits=1; misses=1"
