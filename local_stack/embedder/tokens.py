"""Texts to token ids and back, with TEI's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from local_stack.embedder.errors import ModelError, TeiError
from local_stack.embedder.request import Input

CHARACTERS_PER_TOKEN = 250
"""A text of more characters than this times the length limit is not tokenized whole."""


class Tokenizer:
    """A model's tokenizer. Used from one thread at a time; ``max_length`` is in tokens."""

    def __init__(self, path: Path, max_length: int) -> None:
        """Load ``tokenizer.json``. Raises ``ModelError`` when it is broken."""
        try:
            self._whole = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # its own errors are plain Exceptions
            raise ModelError(f"The tokenizer {path} cannot be read: {error}") from error
        self._whole.no_padding()
        self._whole.no_truncation()
        self.max_length = max_length
        self._cut = {left: self._truncating(left) for left in (False, True)}

    def _truncating(self, left: bool) -> tokenizers.Tokenizer:
        copy = tokenizers.Tokenizer.from_str(self._whole.to_str())
        copy.enable_truncation(self.max_length, direction="left" if left else "right")
        return copy

    def encode(
        self, item: Input, *, truncate: bool, left: bool, prompt_name: str | None
    ) -> list[int]:
        """Turn one input into the ids that the model runs; special ids are added to texts only.

        Raises ``TeiError`` for an empty input, and for one that is too long unless ``truncate``.
        """
        self._check(item, prompt_name, truncate=truncate)
        tokenizer = self._cut[left] if truncate else self._whole
        if isinstance(item, str):
            ids = tokenizer.encode(self._limited(item)).ids
        else:
            # TEI too goes from ids to a text and back: ids beyond the vocabulary vanish here.
            text = self._whole.decode(item, skip_special_tokens=False)
            ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > self.max_length:
            raise _invalid(
                f"`inputs` must have less than {self.max_length} tokens. Given: {len(ids)}"
            )
        return list(ids)

    def _check(self, item: Input, prompt_name: str | None, *, truncate: bool) -> None:
        if not item:
            raise TeiError(
                "Empty", "Input validation error: `inputs` cannot be empty", "tokenization"
            )
        if prompt_name is not None:
            raise _invalid(
                f"`default-prompt-name` is set to `{prompt_name}` but no prompts were found in the "
                "Sentence Transformers configuration"
            )
        if len(item) > self._max_characters and not truncate:
            raise _invalid(
                f"`inputs` must have less than {self._max_characters} characters. "
                f"Given: {len(item)}"
            )

    @property
    def _max_characters(self) -> int:
        return self.max_length * CHARACTERS_PER_TOKEN

    def _limited(self, text: str) -> str:
        limit = self._max_characters
        if len(text) <= limit:
            return text
        # TEI counts characters and cuts bytes, and cuts nothing where that would split a character.
        raw = text.encode()
        return text if raw[limit] & 0xC0 == 0x80 else raw[:limit].decode()

    def tokenize(
        self, text: str, *, add_special_tokens: bool, prompt_name: str | None
    ) -> list[dict[str, Any]]:
        """Describe the tokens of a text as ``/tokenize`` does; offsets are in bytes of UTF-8.

        Raises ``TeiError`` for an empty text and for one of too many characters.
        """
        self._check(text, prompt_name, truncate=False)
        encoding = self._whole.encode(text, add_special_tokens=add_special_tokens)
        starts = _byte_offsets(text)
        tokens = []
        for token_id, token, special, (start, stop) in zip(
            encoding.ids,
            encoding.tokens,
            encoding.special_tokens_mask,
            encoding.offsets,
            strict=True,
        ):
            place = (None, None) if special else (starts[start], starts[stop])
            tokens.append(
                {
                    "id": token_id,
                    "text": token if special else text[start:stop],
                    "special": bool(special),
                    "start": place[0],
                    "stop": place[1],
                }
            )
        return tokens

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Turn ids into text. Raises ``TeiError`` when there are none."""
        if not ids:
            message = "Input validation error: `input_ids` cannot be empty"
            raise TeiError("Empty", message, "tokenization")
        return str(self._whole.decode(ids, skip_special_tokens=skip_special_tokens))


def _invalid(message: str) -> TeiError:
    return TeiError("Validation", f"Input validation error: {message}", "tokenization")


def _byte_offsets(text: str) -> list[int]:
    """For each index in ``text``, its end included, the index in the text's UTF-8."""
    offsets = [0]
    for char in text:
        offsets.append(offsets[-1] + len(char.encode()))
    return offsets
