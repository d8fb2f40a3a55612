"""TEI's requests: what a body may hold.

A struct has the name of TEI's own, which its errors mention. An untagged enum of TEI's, whose
variants differ by shape alone, is a class of its own: ``of`` finds the variant that fits.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import msgspec

MAX_U32 = 2**32 - 1

Input = str | list[int]
"""One input of a request: a text, or token ids."""
Usize = Annotated[int, msgspec.Meta(ge=0)]
Direction = Literal["Left", "left", "Right", "right"]
# What is empty is refused later than what has another shape, and with another status.
Text = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]
Filled = msgspec.Meta(extra_json_schema={"minItems": 1})

S = TypeVar("S", bound="Untagged")


class Untagged(Protocol):
    """A type that is made from any JSON value which fits one of its variants."""

    enum: ClassVar[str]
    """TEI's name of it."""

    @classmethod
    def of(cls: type[S], value: Any) -> S | None:
        """Make one of a decoded JSON value; ``None`` where no variant fits."""


class Inputs:
    """The inputs of a request. TEI counts a bare one and a list of one apart (``single``)."""

    enum: ClassVar[str] = "Input"

    def __init__(self, items: list[Input], *, single: bool) -> None:
        self.items, self.single = items, single

    @classmethod
    def of(cls, value: Any) -> Inputs | None:
        """Make them of a text, of token ids, or of a list of both."""
        if isinstance(value, str) or _is_ids(value):
            return cls([value], single=True)
        if isinstance(value, list) and all(isinstance(i, str) or _is_ids(i) for i in value):
            return cls(value, single=False)
        return None


class Texts(list[str]):
    """The inputs of ``/tokenize``."""

    enum: ClassVar[str] = "TokenizeInput"

    @classmethod
    def of(cls, value: Any) -> Texts | None:
        """Make them of a text or a list of texts."""
        texts = [value] if isinstance(value, str) else value
        fits = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        return cls(texts) if fits else None


class IdLists(list[list[int]]):
    """The token ids of ``/decode``, a list for each text."""

    enum: ClassVar[str] = "InputIds"

    @classmethod
    def of(cls, value: Any) -> IdLists | None:
        """Make them of a list of ids or a list of such lists."""
        lists = [value] if _is_ids(value) else value
        return cls(lists) if isinstance(lists, list) and all(map(_is_ids, lists)) else None


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= MAX_U32 for item in value
    )


class EmbedRequest(msgspec.Struct):
    """A request of ``/embed``, and what those of the other embedding routes come to.

    ``truncate``: ``None`` leaves it to the server. ``dimensions``: how many leading numbers of the
    vector are kept, before it is normalised; ``None`` for all.
    """

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: Usize | None = None

    @property
    def left(self) -> bool:
        """Whether a text that is too long loses its beginning rather than its end."""
        return self.truncation_direction.lower() == "left"


class EmbedAllRequest(msgspec.Struct):
    """A request of ``/embed_all``."""

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None

    def as_embed(self) -> EmbedRequest:
        """The request of ``/embed`` that reads the same tokens."""
        return EmbedRequest(self.inputs, self.truncate, self.truncation_direction, self.prompt_name)


class EmbedSparseRequest(EmbedAllRequest):
    """A request of ``/embed_sparse``."""


class OpenAICompatRequest(msgspec.Struct):
    """A request of ``/v1/embeddings``."""

    input: Inputs
    model: str | None = None
    user: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Usize | None = None


class TokenizeRequest(msgspec.Struct):
    """A request of ``/tokenize``."""

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeRequest(msgspec.Struct):
    """A request of ``/decode``."""

    ids: IdLists
    skip_special_tokens: bool = True


class SimilarityInput(msgspec.Struct):
    """What ``/similarity`` compares."""

    source_sentence: Text
    sentences: Annotated[list[Text], Filled]


class SimilarityParameters(msgspec.Struct):
    """How ``/similarity`` embeds."""

    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None


class SimilarityRequest(msgspec.Struct):
    """A request of ``/similarity``."""

    inputs: SimilarityInput
    parameters: SimilarityParameters | None = None


class RerankRequest(msgspec.Struct):
    """A request of ``/rerank``, which an embedder refuses."""

    query: str
    texts: Annotated[list[str], Filled]
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    raw_scores: bool = False
    return_text: bool = False


class PredictRequest(msgspec.Struct):
    """A request of ``/predict``, which an embedder refuses."""

    inputs: Any
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    raw_scores: bool = False
