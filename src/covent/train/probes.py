"""Fixed probe states: where the entropy change of every optimizer step is accounted for and observed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from covent.core.dynamics import entropy_change_from_logits, entropy_of_logits
from covent.readings import ProbeReading
from covent.rollout.batch import Responses, state_logits
from covent.train.model import LanguageModel

PROBE_BYTES = 256 << 20
"""Memory of the logits that are kept from before an optimizer step."""


def chosen_states(responses: Responses, vocabulary: int) -> Tensor:
    """[B, T] bool: every response token, or as many as memory allows, evenly spaced over all of them.

    Args:
      vocabulary: entries; a state's logits take 8 bytes for each.
    """
    places = responses.mask.nonzero()
    most = max(1, PROBE_BYTES // (8 * vocabulary))
    if len(places) > most:
        # In the middle of equal parts: neither the first nor the last token of a response is preferred.
        places = places[(torch.arange(most, device=places.device) * 2 + 1) * len(places) // (2 * most)]
    chosen = torch.zeros_like(responses.mask)
    chosen[tuple(places.unbind(dim=1))] = True
    return chosen


class Probes:
    """States (prompt and response prefix) of responses that the start policy sampled; they never change.

    With a large vocabulary they are some of the tokens only, so that their logits fit into `PROBE_BYTES`. All sums are
    in float64: near the end of a run a state's entropy change is of the size of float32's rounding.
    """

    def __init__(self, model: LanguageModel, states: Responses) -> None:
        self._model = model
        self._states = states
        self._chosen = chosen_states(states, model.network.get_output_embeddings().weight.shape[0])
        self._before = self._logits()

    def change(self, step: Callable[[], None], predicted: tuple[float, float]) -> ProbeReading:
        """Take an optimizer step and read the entropy change that it made.

        Args:
          step: changes the model's weights.
          predicted: (Theorem 1, Theorem 2) for this step, from before it.
        """
        before = self._before
        step()
        after = self._logits()
        self._before = after
        entropy_before = entropy_of_logits(before)
        return ProbeReading(
            num_states=len(before),
            entropy_before=float(entropy_before.mean()),
            predicted_theorem1=predicted[0],
            predicted_theorem2=predicted[1],
            accounted=float(entropy_change_from_logits(before, after).mean()),
            observed=float((entropy_of_logits(after) - entropy_before).mean()),
        )

    def logits_of(self, weights: dict[str, Tensor]) -> Tensor:
        """[S, V] float64, of the network with these weights in place of its own; gradients flow to them.

        Args:
          weights: by the names of `named_parameters`. They are not written into the network.
        """
        prefixed = {f"network.{name}": weight for name, weight in weights.items()}
        logits: Tensor = functional_call(_ProbeLogits(self._model.network, self._states, self._chosen), prefixed, ())
        return logits

    @torch.no_grad()
    def _logits(self) -> Tensor:
        """[S, V] float64."""
        return state_logits(self._model.network, self._states, self._chosen).double()


class _ProbeLogits(torch.nn.Module):
    """The probe states' logits as one module, as `functional_call` wants it."""

    def __init__(self, network: PreTrainedModel, states: Responses, chosen: Tensor) -> None:
        super().__init__()
        self.network = network
        self._states = states
        self._chosen = chosen

    def forward(self) -> Tensor:
        return state_logits(self.network, self._states, self._chosen).double()
