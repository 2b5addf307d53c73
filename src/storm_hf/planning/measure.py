"""Measured memory of a step: the bytes of all living tensors, counted as they are made and freed.

Plans are checked against it. It counts on any device, also where the allocator reports nothing, and it sees what hooks on saved
tensors do not: caches that a checkpointed layer holds on to.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages of tensors that come to life inside it, each once.

    Args:
        known (`Iterable[torch.Tensor]`, *optional*):
            Tensors that were there before and do not count: parameters, inputs.

    Example:
        ```python
        with LiveBytes(model.parameters()) as memory:
            loss = model(**inputs).loss
            kept = memory.now
            loss.backward()
        print(kept, memory.peak)
        ```
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it made."""
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return output

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
