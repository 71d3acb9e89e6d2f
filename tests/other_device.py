"""A device that is not there: its tensors compute on the CPU, and refuse to be mixed with the CPU's as a GPU's do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Any kind of which torch has no operations of its own would do; gradients flow on few of them.
OTHER = torch.device("lazy", 0)
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
# What begins like this takes no tensor from the CPU, not even one without dimensions: joining, choosing, lists.
_STRICT = (
    *("aten::cat", "aten::concat", "aten::stack", "aten::hstack", "aten::vstack", "aten::dstack"),
    *("aten::index_select", "aten::gather", "aten::scatter", "aten::linear", "aten::_foreach_", "aten::_fused_"),
)


class Elsewhere(Tensor):
    """A tensor of the other device around one of the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        tensor: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=OTHER
        )
        tensor.here = here
        return tensor

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"a tensor on {OTHER} is not an array; copy it to the CPU first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """Tensors that begin on the other device, or are copied to it, have no tensor there among their arguments."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})


@contextlib.contextmanager
def other_device() -> Iterator[torch.device]:
    """While this lasts, there is the device that is given: modules and tensors can be moved to it and made on it."""
    swapped, lifted = torch.__future__.get_swap_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        usual = torch.autocast

        def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
            return contextlib.nullcontext() if device_type == OTHER.type else usual(device_type, *args, **kwargs)

        patch.setattr(torch, "autocast", autocast)
        optimizers = sys.modules["torch.optim.optimizer"]
        patch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", OTHER.type])
        torch.__future__.set_swap_module_params_on_conversion(True)  # the other way keeps the parameter's class
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its values on the CPU, then copies them
        try:
            with _Everywhere():
                yield OTHER
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)
            torch.__future__.set_swap_module_params_on_conversion(swapped)


def _compute(function: Any, args: Any, kwargs: Any) -> Any:
    """Compute on the CPU what a GPU would compute, on the device that it would be on; RuntimeError where it would not.

    A GPU takes indices from the CPU, and into most operations one tensor without dimensions that is only read.
    """
    name = function._schema.name
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if name in _INDEXING:
        there = isinstance(args[0], Elsewhere)
        read = [args[0], *args[2:3], *(() if there else args[1])]
        _check_together(name, [value for value in read if value is not None], args[:1])
    elif name == "aten::copy_":
        there = isinstance(args[0], Elsewhere)
    elif name != "aten::_to_copy":
        written = args[:1] if name.endswith("_") else ()
        _check_together(name, tensors, (*tree_leaves(written), kwargs.get("out")))
    generator = kwargs.get("generator")
    if generator is not None and torch.device(kwargs.get("device") or "cpu").type != generator.device.type:
        raise RuntimeError(f"{name}: a generator and a tensor of two devices: {generator.device}")
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == OTHER.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    changed = {id(_here(tensor)): tensor for tensor in tensors} if function._schema.is_mutable else {}
    found = function(*tree_map(_here, args), **tree_map(_here, kwargs))

    def result(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in changed:  # in place
            return changed[id(value)]
        return Elsewhere(value) if there else value

    return tree_map(result, found)


def _here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value


def _check_together(name: str, tensors: list[Any], written: Sequence[Any]) -> None:
    near = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
    if len(near) == len(tensors):
        return
    changed = any(tensor is one for tensor in near for one in written)
    if changed or any(tensor.dim() for tensor in near) or len(near) > (0 if name.startswith(_STRICT) else 1):
        shapes = [f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors]
        raise RuntimeError(f"{name}: tensors of two devices: {', '.join(shapes)}")
