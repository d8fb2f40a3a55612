"""The libraries of others, each asked for embeddings as its own documentation does.

Run by the Python of `.venv-clients`, which holds them: reads requests as lines of JSON,
``{"client", "url", "texts"}``, and answers each with a line, ``{"vectors"}`` or ``{"error"}``. One
process for all of them, so that each is imported once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

#: No library is to look for a newer self or to report its use: this machine may be alone.
QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}

Vectors = list[list[float]]


def huggingface_hub(url: str, texts: list[str]) -> Vectors:
    from huggingface_hub import InferenceClient

    client = InferenceClient(url)  # a bare host: POST /
    return [list(map(float, client.feature_extraction(text)[0])) for text in texts]


def openai(url: str, texts: list[str]) -> Vectors:
    from openai import OpenAI

    client = OpenAI(base_url=url + "/v1", api_key="none")  # asks for base64
    reply = client.embeddings.create(model="any", input=texts)
    assert [item.index for item in reply.data] == list(range(len(texts)))
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > len(texts)
    assert client.models.list().data[0].id == reply.model
    return [item.embedding for item in reply.data]


def openai_floats(url: str, texts: list[str]) -> Vectors:
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none")  # without /v1: POST /embeddings
    reply = client.embeddings.create(model="any", input=texts, encoding_format="float")
    return [item.embedding for item in reply.data]


def langchain_huggingface(url: str, texts: list[str]) -> Vectors:
    from huggingface_hub import InferenceClient
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    embeddings = HuggingFaceEndpointEmbeddings(model="any", huggingfacehub_api_token="none")
    embeddings.client = InferenceClient(url)  # its `model` may be no URL
    vectors: Vectors = embeddings.embed_documents(texts)
    return vectors


def langchain_openai(url: str, texts: list[str]) -> Vectors:
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        base_url=url + "/v1", api_key="none", model="any", check_embedding_ctx_length=False
    )
    vectors: Vectors = embeddings.embed_documents(texts)
    return vectors


def langchain_openai_ids(url: str, texts: list[str]) -> Vectors:
    """As it does unless set otherwise: token ids of OpenAI's vocabulary."""
    import litellm
    from langchain_openai import OpenAIEmbeddings

    # tiktoken would fetch the vocabulary; litellm brings it along.
    os.environ["TIKTOKEN_CACHE_DIR"] = str(
        Path(litellm.__file__).parent / "litellm_core_utils/tokenizers"
    )
    embeddings = OpenAIEmbeddings(base_url=url + "/v1", api_key="none", model="any", max_retries=0)
    vectors: Vectors = embeddings.embed_documents(texts)
    return vectors


def llama_index(url: str, texts: list[str]) -> Vectors:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    embeddings = TextEmbeddingsInference(model_name="any", base_url=url)
    vectors: Vectors = embeddings.get_text_embedding_batch(texts)
    return vectors


def haystack(url: str, texts: list[str]) -> Vectors:
    from haystack import Document
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPIDocumentEmbedder,
    )

    embedder = HuggingFaceAPIDocumentEmbedder(
        api_type="text_embeddings_inference",
        api_params={"url": url},
        token=None,
        normalize=True,
        progress_bar=False,
    )
    documents = [Document(content=text, id=str(i)) for i, text in enumerate(texts)]
    return [document.embedding for document in embedder.run(documents)["documents"]]


def haystack_query(url: str, texts: list[str]) -> Vectors:
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPITextEmbedder,
    )

    embedder = HuggingFaceAPITextEmbedder(
        api_type="text_embeddings_inference",
        api_params={"url": url + "/embed"},
        token=None,
        normalize=True,
    )
    return [embedder.run(text)["embedding"] for text in texts]


def chromadb(url: str, texts: list[str]) -> Vectors:
    from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer

    return [vector.tolist() for vector in HuggingFaceEmbeddingServer(url=url + "/embed")(texts)]


def litellm_openai(url: str, texts: list[str]) -> Vectors:
    import litellm

    reply = litellm.embedding("openai/any", texts, api_base=url + "/v1", api_key="none")
    assert reply.usage.prompt_tokens > len(texts)
    return [item["embedding"] for item in reply.data]


def litellm_huggingface(url: str, texts: list[str]) -> Vectors:
    import litellm

    reply = litellm.embedding(
        "huggingface/any",
        texts,
        api_base=url + "/embed",
        api_key="none",
        input_type="feature-extraction",  # else it asks the hub
    )
    return [item["embedding"] for item in reply.data]


CLIENTS: dict[str, Callable[[str, list[str]], Vectors]] = {
    function.__name__: function
    for function in (
        huggingface_hub,
        openai,
        openai_floats,
        langchain_huggingface,
        langchain_openai,
        langchain_openai_ids,
        llama_index,
        haystack,
        haystack_query,
        chromadb,
        litellm_openai,
        litellm_huggingface,
    )
}


def main() -> None:
    # What a library prints must not get among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    os.environ.update(QUIET)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, object]
        try:
            answer = {"vectors": CLIENTS[request["client"]](request["url"], request["texts"])}
        except Exception as error:  # whatever the library raises is its answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
