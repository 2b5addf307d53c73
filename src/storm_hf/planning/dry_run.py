"""Memory and arithmetic of operations, counted as they run: on tensors with data, or in a dry run on tensors without.

In a dry run weights, pixels and all that is computed from them have a shape and no data. Token ids, masks and grids are real
tensors, so that a model finds its latent block and cuts a clip into windows as in a real run.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, sdpa_flop


_aten = torch.ops.aten
CPU, _META = torch.device("cpu"), torch.device("meta")
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_NUMBERS = {_aten.arange, _aten.linspace, _aten.scalar_tensor}  # positions are computed from them


def _grouped_flops(left: torch.Tensor, right: torch.Tensor, *args: object, **kwargs: object) -> int:
    return 2 * left.numel() * right.shape[-1]


def _attention_gradient_flops(gradient: torch.Tensor, *args: object, out_val: object, **kwargs: object) -> int:
    return 2 * sdpa_flop(*args, out_val=out_val, **kwargs)


_FLOPS = {
    **flop_registry,
    _aten._grouped_mm: _grouped_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradient_flops,
}


class LiveBytes(TorchDispatchMode):
    """Counts the storages of tensors that come to life inside it, each once.

    It counts on any device, also where the allocator reports nothing, and it sees what hooks on saved tensors do not: caches
    that a checkpointed layer holds on to.

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


class DryTensor(torch.Tensor):
    """A tensor without data, on the CPU by name. Only a [`DryRun`] makes it and computes with it."""

    memory: torch.UntypedStorage
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse an operation outside of a dry run."""
        raise RuntimeError(f"{func} needs the data of a tensor that has none.")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DryTensor({tuple(self.shape)}, {self.dtype})"


@dataclass(frozen=True)
class _Made:
    """A tensor that an operation returns: a new one, or an `argument` a view of it, or it itself; -1 is none."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    num_bytes: int
    argument: int
    is_argument: bool


@dataclass(frozen=True)
class _Outcome:
    """Output of an operation on arguments of certain shapes, with [`_Made`] in place of tensors, and its FLOPs."""

    output: Any
    flops: int


class DryRun(LiveBytes):
    """Runs operations without data, and counts their bytes and their FLOPs.

    Floating-point tensors that are made inside it have no data. What an operation makes of its arguments depends on their
    shapes alone: it is found on the `meta` device, once, and remembered. An operation on tensors with data runs as usual.

    `flops` are model FLOPs: what layers compute once more does not count, if they are checkpointed with `checkpoint_contexts`.

    Example:
        ```python
        with DryRun() as run:
            model = AutoModelForImageTextToText.from_config(config)
            weights, run.peak = run.now, run.now
            model(input_ids=input_ids).logits.sum().backward()
        print(run.peak - weights, run.flops)
        ```
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self._is_again = False
        self._outcomes: dict[Any, _Outcome] = {}

    def checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts of a checkpointed layer's two forward passes: the `context_fn` of [`torch.utils.checkpoint.checkpoint`]."""
        return nullcontext(), self._again()

    @contextmanager
    def _again(self) -> Iterator[None]:
        self._is_again = True
        try:
            yield
        finally:
            self._is_again = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, without data where an argument has none, and note what it made."""
        kwargs = kwargs or {}
        arguments: list[torch.Tensor] = []
        shapes = _shapes((args, kwargs), arguments)
        if any(type(argument) is DryTensor for argument in arguments):
            if func in _INDEXED and any(map(_is_mask, args[1])):
                return self.__torch_dispatch__(func, types, (args[0], _positions(args[1]), *args[2:]), kwargs)
            outcome = self._outcome(func, shapes, args, kwargs)
        elif arguments or func.overloadpacket in _NUMBERS:
            return super().__torch_dispatch__(func, types, args, kwargs)
        else:
            outcome = self._outcome(func, shapes, args, {**kwargs, "device": _META})
            if not outcome.output.dtype.is_floating_point:
                return super().__torch_dispatch__(func, types, args, kwargs)
        if not self._is_again:
            self.flops += outcome.flops
        return self._build(outcome.output, arguments)

    def _outcome(self, func: object, shapes: object, args: object, kwargs: object) -> _Outcome:
        outcome = self._outcomes.get((func, shapes))
        if outcome is None:
            outcome = self._outcomes[func, shapes] = _on_meta(func, args, kwargs)
        return outcome

    def _build(self, made: object, arguments: list[torch.Tensor]) -> Any:
        """Make the tensors of an outcome."""
        if isinstance(made, list | tuple):
            return type(made)([self._build(part, arguments) for part in made])
        if not isinstance(made, _Made):
            return made
        if made.is_argument:
            return arguments[made.argument]
        tensor = torch.Tensor._make_wrapper_subclass(
            DryTensor, made.shape, strides=made.strides, dtype=made.dtype, device=CPU
        )
        if made.argument < 0:
            tensor.memory = torch.UntypedStorage(made.num_bytes, device=_META)
            self._note(tensor.memory)
        else:
            argument = arguments[made.argument]
            tensor.memory = argument.memory if isinstance(argument, DryTensor) else argument.untyped_storage()
        return tensor


def _shapes(value: object, arguments: list[torch.Tensor]) -> Any:
    """Describe the arguments of an operation without their data, and collect the tensors among them."""
    if isinstance(value, torch.Tensor):
        arguments.append(value)
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple([_shapes(part, arguments) for part in value])
    if isinstance(value, dict):
        return tuple([(name, _shapes(part, arguments)) for name, part in value.items()])
    return type(value), value


def _is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool and not isinstance(index, DryTensor)


def _positions(indices: Any) -> list[torch.Tensor | None]:
    """Replace masks by the positions where they are True, whose number a shape can hold."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        found += index.nonzero().unbind(1) if _is_mask(index) else [index]
    return found


def _on_meta(func: Any, args: Any, kwargs: Any) -> _Outcome:
    """Run an operation on the `meta` device."""
    metas: list[torch.Tensor] = []
    is_grouped = func.overloadpacket is _aten._grouped_mm  # `meta` knows it in bfloat16 alone

    def to_meta(value: object) -> Any:
        if isinstance(value, torch.Tensor):
            dtype = torch.bfloat16 if is_grouped and value.is_floating_point() else value.dtype
            metas.append(torch.empty_strided(value.shape, value.stride(), dtype=dtype, device=_META))
            return metas[-1]
        return _META if isinstance(value, torch.device) else value

    meta_args, meta_kwargs = tree_map(to_meta, (args, kwargs))
    output = func(*meta_args, **meta_kwargs)
    count = _FLOPS.get(func.overloadpacket)
    flops = 0 if count is None else count(*meta_args, **meta_kwargs, out_val=output)
    if is_grouped:
        output = output.to(args[0].dtype)
    return _Outcome(tree_map(lambda value: _describe(value, metas), output), flops)


def _describe(value: object, metas: list[torch.Tensor]) -> Any:
    """Describe what an operation returned, if it is a tensor, beside the arguments that it was made of."""
    if not isinstance(value, torch.Tensor):
        return value
    storage = value.untyped_storage()
    same = [position for position, meta in enumerate(metas) if meta is value]
    shared = [position for position, meta in enumerate(metas) if meta.untyped_storage()._cdata == storage._cdata]
    argument = next(iter(same + shared), -1)
    return _Made(value.shape, value.stride(), value.dtype, storage.nbytes(), argument, bool(same))
