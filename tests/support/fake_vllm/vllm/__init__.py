"""What covent calls of vLLM, over transformers: a token of each unfinished request a step, from given weights.

The names and arguments are those of vLLM 0.31; an argument that it does not know is an error, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from vllm.inputs import TokensPrompt


@dataclass(kw_only=True)
class SamplingParams:
    """What covent sets of it."""

    temperature: float
    max_tokens: int
    seed: int
    logprobs: int
    stop_token_ids: list[int]
    ignore_eos: bool
    detokenize: bool


@dataclass
class _Request:
    request_id: str
    prompt: list[int]
    params: SamplingParams
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Any]] = field(default_factory=list)

    def finish_reason(self) -> str | None:
        if self.tokens and self.tokens[-1] in self.params.stop_token_ids:
            return "stop"
        return "length" if len(self.tokens) == self.params.max_tokens else None


class LLM:
    """An engine without weights of its own."""

    started: int = 0

    def __init__(
        self,
        *,
        model: str,
        load_format: str,
        skip_tokenizer_init: bool,
        generation_config: str,
        dtype: str,
        logprobs_mode: str,
        gpu_memory_utilization: float,
        max_model_len: int | None,
        disable_log_stats: bool,
    ) -> None:
        assert (load_format, generation_config, logprobs_mode) == ("dummy", "vllm", "processed_logprobs")
        if dtype not in {"float32", "bfloat16"}:
            raise ValueError(f"Unknown dtype: {dtype}")
        config = AutoConfig.from_pretrained(model)
        if max_model_len is not None and max_model_len > config.max_position_embeddings:
            raise ValueError(f"max_model_len {max_model_len} is greater than the model's")
        self._network = AutoModelForCausalLM.from_config(config).eval()
        self._requests: list[_Request] = []
        self._caches_of_old_weights = False
        self.llm_engine = self
        # As vLLM does on a CPU.
        torch.set_num_threads = lambda number: None
        LLM.started += 1

    def collective_rpc(self, method: str, *, kwargs: dict[str, Iterator[tuple[str, Tensor]]]) -> None:
        assert method == "reload_weights"
        missing, unknown = self._network.load_state_dict(dict(kwargs["weights_iterator"]), strict=False)
        assert not missing
        assert not unknown, unknown
        self._caches_of_old_weights = True

    def reset_prefix_cache(self) -> None:
        self._caches_of_old_weights = False

    def add_request(self, request_id: str, prompt: TokensPrompt, params: SamplingParams) -> None:
        generator = torch.Generator().manual_seed(params.seed)
        self._requests.append(_Request(request_id, list(prompt["prompt_token_ids"]), params, generator))

    def has_unfinished_requests(self) -> bool:
        return bool(self._requests)

    def step(self) -> list[Any]:
        assert not self._caches_of_old_weights
        for request in self._requests:
            self._advance(request)
        # Not in the order in which they came, as vLLM's are.
        done = [each for each in reversed(self._requests) if each.finish_reason()]
        self._requests = [each for each in self._requests if not each.finish_reason()]
        unfinished = [SimpleNamespace(request_id=each.request_id, finished=False) for each in self._requests]
        return unfinished + [
            SimpleNamespace(
                request_id=each.request_id,
                finished=True,
                outputs=[
                    SimpleNamespace(token_ids=each.tokens, logprobs=each.logprobs, finish_reason=each.finish_reason())
                ],
            )
            for each in done
        ]

    @torch.no_grad()
    def _advance(self, request: _Request) -> None:
        logits = self._network(torch.tensor([request.prompt + request.tokens])).logits[0, -1].double()
        temperature = request.params.temperature
        logprobs = (logits / (temperature or 1.0)).log_softmax(dim=-1)
        token = int(
            torch.multinomial(logprobs.exp(), 1, generator=request.generator) if temperature else logits.argmax()
        )
        request.tokens.append(token)
        request.logprobs.append({token: SimpleNamespace(logprob=float(logprobs[token]))})
