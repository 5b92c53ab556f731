"""A policy's steps as CUDA graphs: on a GPU it takes ten times as long to launch so small kernels one by one as to run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .cores import State
from .recurrent import CorePolicy, Observations


class StepGraphs:
    """The policy's step, forward and backward, as a CUDA graph for each step of a rollout; recorded when first needed.

    One for each, because what a step keeps for its gradient lies in its graph's own memory until the rollout is learned from.
    What a step returns lies there too: it holds until the same step of the next rollout. The weights are read where they lie, so
    that updates in place count.

    Args:
        policy: on a GPU, in training mode.
        record: records a module's step for arguments like those given, see `torch.cuda.make_graphed_callables`.
    """

    def __init__(self, policy: CorePolicy, record: Callable[..., Any] = torch.cuda.make_graphed_callables) -> None:
        self._policy, self._record = policy, record
        # Recordings have a stream of their own, and with them what sums up the gradients: that it has to wait is as it should be.
        if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        self._graphs: list[Any] = []

    def __call__(self, index: int, obs: Observations, state: State) -> Any:
        """What the policy returns, with its gradient, at step `index` of a rollout: obs (N, ...), state of (N, H) tensors."""
        if index == len(self._graphs):
            like = tree_map_only(Tensor, lambda part: part.detach().clone().requires_grad_(part.requires_grad), (obs, state))
            self._graphs.append(self._record(_Step(self._policy), like, allow_unused_input=True))
        return self._graphs[index](obs, state)


class _Step(nn.Module):
    """The policy as a module of its own, of which there can be several: a recording changes the module that it is of."""

    def __init__(self, policy: CorePolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: Observations, state: State) -> Any:
        return self.policy(obs, state)
