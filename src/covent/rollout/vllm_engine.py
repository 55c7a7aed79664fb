"""Sampling by vLLM instead of the embedded sampler: an engine in this process that takes the learner's weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from covent import stopping
from covent.core.keys import TokenIdentity, token_uniform
from covent.errors import ConfigError, MissingExtraError
from covent.rollout.batch import Responses, pad_left, score
from covent.rollout.forward import arithmetic


@dataclass
class VllmEngine:
    """An engine, made when first asked for responses, and given the weights of the learner before each answer.

    vLLM gives the log-prob of a sampled token, not the entropy of what it was drawn from. So the learner scores each
    response once more: the entropies of `Responses` are its own, exact, and of the same weights. `sampler_gap` says how
    far the two are apart.

    Each response has a seed of its own, a hash of (key, group, sample). vLLM's arithmetic depends on what else is in a
    batch, so that the same seed gives the same responses mostly, not always.
    """

    weights: Callable[[PreTrainedModel], Mapping[str, Tensor]]
    """Names and weights as transformers saves them; LoRA merged."""
    gpu_memory_utilization: float
    """Share of a device's memory that vLLM may take for weights and cache."""
    max_model_len: int | None
    """Tokens of prompt and response; None: the model's own limit."""
    responses_per_forward: int
    """Responses that the learner scores at a time."""
    _llm: Any = field(default=None, init=False)
    _num_requests: int = field(default=0, init=False)

    @torch.no_grad()
    def sample(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        *,
        groups: Sequence[int],
        num_samples: int,
        max_tokens: int,
        end_id: int,
        pad_id: int,
        key: int,
        temperature: float = 1.0,
    ) -> Responses:
        """As `covent.rollout.sampler.sample`, but for the entropies, which are the learner's. At temperature 0 the
        log-probs are the learner's too.

        Raises:
          MissingExtraError: vLLM is not installed.
          ConfigError: vLLM does not take this model, or has no room for it.
          NonFiniteError: a logit of the learner is NaN or infinite.
          Stopped: a signal asked for it.
        """
        self._take_weights(model)
        group = torch.tensor(groups).repeat_interleave(num_samples)
        number = torch.arange(num_samples).repeat(len(prompts))
        draws = token_uniform(key, TokenIdentity(group, number, torch.zeros_like(group)))
        seeds = (draws * 2**31).long().tolist()
        rows = [list(prompt) for prompt in prompts for _ in range(num_samples)]
        outputs = self._generated(rows, seeds, max_tokens, end_id, temperature)
        found = _as_responses(rows, outputs, group, number, pad_id).to(model.device)
        return self._scored(model, found, temperature)

    def _scored(self, model: PreTrainedModel, responses: Responses, temperature: float) -> Responses:
        """With the learner's entropies, and its log-probs where vLLM gives none at a temperature above 0."""
        scores = []
        for first in range(0, len(responses), self.responses_per_forward):
            stopping.poll()
            part = responses.rows(slice(first, first + self.responses_per_forward))
            scores.append(score(model, part, temperature=temperature or 1.0))
        own, entropies = (torch.cat(column).masked_fill(~responses.mask, 0.0) for column in zip(*scores, strict=True))
        logprobs = responses.logprobs.to(own) if temperature else own
        return replace(responses, logprobs=logprobs, entropies=entropies)

    def _generated(
        self, rows: list[list[int]], seeds: list[int], max_tokens: int, end_id: int, temperature: float
    ) -> list[Any]:
        """vLLM's output for each row. It is asked token by token, so that a signal need not wait for the last one."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        engine, first = self._llm.llm_engine, self._num_requests
        self._num_requests += len(rows)
        for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            # vLLM's own end token is none of a model's that was made here.
            params = SamplingParams(
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed,
                logprobs=0,
                stop_token_ids=[end_id],
                ignore_eos=True,
                detokenize=False,
            )
            engine.add_request(str(first + place), TokensPrompt(prompt_token_ids=row), params)
        found: dict[int, Any] = {}
        while engine.has_unfinished_requests():
            stopping.poll()
            found |= {int(each.request_id): each.outputs[0] for each in engine.step() if each.finished}
        return [found[first + place] for place in range(len(rows))]

    def _take_weights(self, model: PreTrainedModel) -> None:
        if self._llm is None:
            self._llm = self._started(model)
        weights = ((name, tensor.detach()) for name, tensor in self.weights(model).items())
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        # What it remembers of prompts is of other weights.
        self._llm.reset_prefix_cache()

    def _started(self, model: PreTrainedModel) -> Any:
        with _in_this_process(), tempfile.TemporaryDirectory() as folder:
            try:
                from vllm import LLM
            except ModuleNotFoundError as error:
                raise MissingExtraError(
                    "sampler.engine = vllm needs vLLM, which is not installed. Install the extra: pip install"
                    " 'covent[vllm]'; or use sampler.engine=torch, which needs nothing."
                ) from error
            # The folder of a model that is trained may hold other weights: its config is all that is needed.
            model.config.save_pretrained(folder)
            try:
                return LLM(
                    model=folder,
                    load_format="dummy",
                    skip_tokenizer_init=True,
                    generation_config="vllm",
                    dtype=str(arithmetic(model)).removeprefix("torch."),
                    logprobs_mode="processed_logprobs",
                    gpu_memory_utilization=self.gpu_memory_utilization,
                    max_model_len=self.max_model_len,
                    disable_log_stats=True,
                )
            except (ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"sampler.engine = vllm: vLLM does not start with this model: {error}. Its share of the memory is"
                    f" sampler.gpu_memory_utilization = {self.gpu_memory_utilization:g}, the longest prompt with"
                    " response sampler.max_model_len; sampler.engine=torch does without vLLM."
                ) from error


@contextmanager
def _in_this_process() -> Iterator[None]:
    """vLLM set up so that it can be handed weights, and leaves the number of CPU threads alone."""
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    try:
        yield
    finally:
        # On a CPU vLLM puts another function in its place.
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(num_threads)


def _as_responses(rows: list[list[int]], outputs: list[Any], group: Tensor, number: Tensor, pad_id: int) -> Responses:
    """vLLM's outputs as padded tensors; the entropies are 0 until they are scored."""
    prompt_ids, prompt_mask = pad_left(rows, pad_id)
    lengths = torch.tensor([len(output.token_ids) for output in outputs])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.full(mask.shape, pad_id)
    tokens[mask] = torch.tensor([token for output in outputs for token in output.token_ids])
    logprobs = torch.zeros(mask.shape)
    logprobs[mask] = torch.tensor(
        [at[token].logprob for output in outputs for at, token in zip(output.logprobs, output.token_ids, strict=True)]
    )
    return Responses(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=tokens,
        mask=mask,
        logprobs=logprobs,
        entropies=torch.zeros(mask.shape),
        truncated=torch.tensor([output.finish_reason == "length" for output in outputs]),
        group=group,
        sample=number,
    )
