"""Frames of sequences, and the equations that the ties between them make, on the device.

`TiedFrames` ties frames whose own equations another class writes, and solves for the steps of chains of frames. Threads
share the work, in groups of frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.backends.variable_tables import JointTree
from skelfit.fitting.parallel_batches import Each
from skelfit.fitting.passes import whole_groups
from skelfit.fitting.sequences.elimination_order import Elimination, make_elimination
from skelfit.fitting.terms.temporal_smoothness import FrameTies, make_tied

Indices = NDArray[np.int64]
FrameGroups = tuple[Any, Any, Any]  # (G, L) frames, and those before and after them
_GROUPS = 64  # of frames, per call of a kernel on a CPU: enough work for a thread


@dataclass(frozen=True)
class FrameChains:
    """Chains of frames that step together, as inputs of the kernels; made by `TiedFrames.chains`."""

    frames: Indices
    parts: list[FrameGroups]  # each is the work of one thread at a time
    elimination: Elimination


class TiedFrames(ABC):
    """N frames with n variables each, of which the first turn joints; ties hold how these deviate from a start."""

    def __init__(
        self, backend: Backend, tree: JointTree, n: int, q: Tensor, start: Tensor, each: Each
    ) -> None:
        """tree: the joints; q: the frames' angles (N, 46) rad, which steps change; start: those to deviate from."""
        k, count = backend.kernels, len(q)
        self.backend, self.each, self.n = backend, each, n
        self.q, self.start = q, start
        self.tied, self.has_root = make_tied(tree, backend.device), 0 in tree.joints
        self.system = k.cyclic_reduction.make_chain_system(count, n, backend.device)
        joints = self.tied.first.shape[0] - 1
        self.sequences = k.temporal_terms.make_sequence_terms(count, n, joints, backend.device)
        none = np.full(count, -1)
        self.ties = FrameTies(none, none, torch.zeros(count, 2))
        self.factors: Any = None

    @abstractmethod
    def move(self, frames: Any) -> None:
        """Move groups of frames (G, L) along the solution, and write what it promises."""

    def tie_groups(self, part: FrameGroups) -> None:
        """Add the ties of groups of frames to their equations."""
        kernel = self.backend.kernels.temporal_terms.tie
        self.launch(kernel, *part, self.tied, self.sequences, self.system)

    def label_rotations(self) -> NDArray[np.float32]:
        """The rotations (N, K, 9) of the joints at the start, row by row.

        Without the root: it never turns in the canonical frame, and would only dilute a mean.
        """
        all_parts = self._parts(np.arange(len(self.start)))
        # The deviations from angles of zero are the rotations themselves.
        self.sequences.start = self.backend.array(torch.zeros_like(self.start))
        rotations = np.asarray(self.deviations(all_parts, self.start).numpy())
        return rotations[:, int(self.has_root) :]

    def set_ties(self, ties: FrameTies) -> None:
        """Use these ties between frames."""
        self.ties = ties
        self.sequences.start = self.backend.array(self.start)
        wp.to_torch(self.sequences.weight).copy_(ties.weight)

    def chains(self, chains: Sequence[Indices]) -> FrameChains:
        """Chains of frames that step together. Neighbours that are in no chain stay where they are."""
        frames = np.concatenate(chains)
        elimination = make_elimination(self.backend, chains)
        if self.factors is None or self.factors.y.shape[0] < elimination.groups:
            self.factors = self.backend.kernels.cyclic_reduction.make_chain_factors(
                elimination.groups, self.n, self.backend.device
            )
        return FrameChains(frames, self._parts(frames), elimination)

    def tie(self, chains: FrameChains) -> Tensor:
        """Add the ties to the equations of chains, each frame's own being there; returns values (N, 3), on the host.

        Columns: the frame's own objective, its tie to the frame before, its tie to the frame after.
        """
        self._deviate(chains.parts, self.q)
        self.share(chains.parts, self.tie_groups)
        return self.backend.read(self.sequences.value)

    def step(self, chains: FrameChains, damping: Tensor) -> None:
        """Move chains by a damped step, damping (N,); overwrites the equations."""
        kernel = self.backend.kernels.temporal_terms.damp
        wp.to_torch(self.sequences.damping).copy_(damping)
        self.share(chains.parts, lambda part: self.launch(kernel, part[0], self.sequences, self.system))
        chains.elimination.solve(self.system, self.factors, self._share_groups)
        self.share(chains.parts, lambda part: self.move(part[0]))

    def deviations(self, parts: list[FrameGroups], q: Tensor) -> Tensor:
        """The deviations (N, K, 9) of joints at q (N, 46), on the host."""
        self._deviate(parts, q)
        return self.backend.read(self.sequences.deviation)

    @property
    def promise(self) -> Tensor:
        """The decrease that the last step promised of each frame, (N,), on the host."""
        return self.backend.read(self.sequences.predicted).abs()

    @property
    def size(self) -> int:
        """Frames per call of a kernel."""
        return self.backend.lanes * _GROUPS if self.backend.workers is None else self.backend.batch_size

    def share(self, parts: list[FrameGroups], work: Callable[[FrameGroups], None]) -> None:
        """Do the work of all parts, in threads."""
        self.each(lambda k: work(parts[k]), range(len(parts)))

    def launch(self, kernel: Any, frames: Any, *inputs: Any) -> None:
        """Start a kernel on groups of frames (G, L)."""
        self.backend.launch(kernel, frames.shape[0], [frames, *inputs])

    def _parts(self, frames: Indices) -> list[FrameGroups]:
        groups = whole_groups(frames, self.backend.lanes)
        around = [groups, *(x[groups] for x in (self.ties.before, self.ties.after))]
        lists, count = [self.backend.ints(x) for x in around], len(groups)
        size = max(self.size // self.backend.lanes, 1)
        parts = [slice(a, min(a + size, count)) for a in range(0, count, size)]
        return [(lists[0][part], lists[1][part], lists[2][part]) for part in parts]

    def _share_groups(self, work: Callable[[int, int], None], groups: int) -> None:
        size = max(self.size // self.backend.lanes, 1)
        self.each(lambda a: work(a, min(a + size, groups)), range(0, groups, size))

    def _deviate(self, parts: list[FrameGroups], q: Tensor) -> None:
        """Write the deviations of joints at q (N, 46) from the start's."""
        kernel = self.backend.kernels.temporal_terms.compute_deviations
        inputs = [self.backend.array(q), self.tied, self.sequences]
        self.share(parts, lambda part: self.launch(kernel, part[0], *inputs))
