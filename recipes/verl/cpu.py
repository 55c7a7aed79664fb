"""What verl lacks for a run on CPUs: a platform, FSDP2 on gloo, and a rollout engine. For tests and small examples.

    VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=recipes.verl.cpu python -m verl.trainer.main_ppo ...

verl imports this module in each of its processes. One thing of verl is replaced: the process group, which it would open
for gloo twice.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import torch
import torch.distributed as dist
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.utils import distributed
from verl.workers.rollout import base as rollout_base
from verl.workers.rollout import replica

ROLLOUT = "cpu_rollout"


def _nothing(*_: Any, **__: Any) -> None:
    """A call that means nothing on a CPU."""


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One CPU; Ray is told that it is a GPU, since verl counts nothing else."""

    device_name = "cpu"
    vendor_name = "none"
    device_module = SimpleNamespace(
        get_device_name=lambda *_: "CPU",
        empty_cache=_nothing,
        synchronize=_nothing,
        set_device=_nothing,
        current_device=lambda: 0,
        max_memory_allocated=lambda *_: 0,
        max_memory_reserved=lambda *_: 0,
        memory_allocated=lambda *_: 0,
        memory_reserved=lambda *_: 0,
        mem_get_info=lambda *_: (1, 1),
        get_rng_state=torch.get_rng_state,
        set_rng_state=torch.set_rng_state,
        is_available=lambda: True,
    )
    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = _nothing
    manual_seed = manual_seed_all = _nothing

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def cudart(self) -> None:
        return None


_process_group = distributed.initialize_global_process_group_ray


def _gloo_once(timeout_second: Any = None, backend: Any = None) -> None:
    _process_group(timeout_second, "gloo")


distributed.initialize_global_process_group_ray = _gloo_once


@ray.remote
class Server:
    """Samples from a copy of the policy, one request after another."""

    def __init__(self, config: Any, response_length: int, seed: int) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_config(config).eval()
        self.response_length, self.end = response_length, config.eos_token_id
        self.generator = torch.Generator().manual_seed(seed)
        self.global_steps: int | None = None

    def load(self, weights: dict[str, torch.Tensor], global_steps: int | None) -> None:
        """Take the policy's weights."""
        self.model.load_state_dict(weights, strict=False)
        self.global_steps = global_steps

    @torch.no_grad()
    def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> replica.TokenOutput:
        """One response."""
        ids, logprobs = list(prompt_ids), []
        temperature = float(sampling_params.get("temperature", 1.0))
        while len(logprobs) < self.response_length and (not logprobs or ids[-1] != self.end):
            logits = self.model(torch.tensor([ids])).logits[0, -1].float()
            distribution = torch.log_softmax(logits / temperature if temperature else logits, dim=-1)
            chosen = distribution.exp().multinomial(1, generator=self.generator) if temperature else logits.argmax()
            ids.append(int(chosen))
            logprobs.append(float(distribution[int(chosen)]))
        steps = {"global_steps": self.global_steps}
        return replica.TokenOutput(
            token_ids=ids[len(prompt_ids) :], log_probs=logprobs, stop_reason="completed", extra_fields=steps
        )

    def wake_up(self) -> None:
        """verl asks for it."""

    def sleep(self) -> None:
        """verl asks for it."""


class Replica(replica.RolloutReplica):
    """One server beside each worker."""

    async def launch_servers(self) -> None:
        from transformers import AutoConfig

        name = server_name(self.replica_rank)
        config = AutoConfig.from_pretrained(self.model_config.path)
        length = self.config.response_length
        server = Server.options(name=name, num_cpus=0).remote(config, length, seed=self.replica_rank)
        self.servers, self._server_handle, self._server_address = [server], server, name


class Adapter(rollout_base.BaseRollout):
    """Hands the weights of a worker to its server."""

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """There is no memory to win."""

    async def update_weights(
        self, weights: Generator[tuple[str, torch.Tensor], None, None], global_steps: int | None = None, **_: Any
    ) -> None:
        # Every rank takes part in gathering each weight.
        whole = {name: weight.detach().cpu().clone() for name, weight in weights}
        await ray.get_actor(server_name(dist.get_rank())).load.remote(whole, global_steps)


def server_name(rank: int) -> str:
    """Of the server beside a worker."""
    return f"cpu_server_{rank}"


replica.RolloutReplicaRegistry.register(ROLLOUT, lambda: Replica)
rollout_base._ROLLOUT_REGISTRY[(ROLLOUT, "async")] = f"{__name__}.Adapter"


def _register_engine() -> None:
    """FSDP on CPUs, once."""
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    known = EngineRegistry._engines.get("language_model", {}).get("fsdp2", {})
    if "cpu" not in known:
        EngineRegistry.register("language_model", ["fsdp", "fsdp2"], device="cpu")(FSDPEngineWithLMHead)


_register_engine()


def _note(folder: Path) -> None:
    """Once verl is imported here, write down which of covent's losses this process has."""
    # An import from this thread would wait for the one that verl is in.
    while sys.modules["verl"].__spec__._initializing:  # type: ignore[union-attr]  # it has a spec
        time.sleep(0.1)
    registry = sys.modules["verl.trainer.ppo.core_algos"].POLICY_LOSS_REGISTRY
    found = sorted(name for name in registry if name.startswith("covent"))
    (folder / str(os.getpid())).write_text(f"{Path(sys.argv[0]).name}: {' '.join(found)}")


if folder := os.environ.get("COVENT_VERL_PROCESSES"):
    threading.Thread(target=_note, args=(Path(folder),), daemon=True).start()
