"""A prompt of token ids."""

from __future__ import annotations

from typing import TypedDict


class TokensPrompt(TypedDict):
    """As vLLM's."""

    prompt_token_ids: list[int]
