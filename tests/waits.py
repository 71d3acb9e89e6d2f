"""Operations that make the CPU wait for a GPU, counted on any device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = {
    "aten.nonzero.default",
    "aten._local_scalar_dense.default",
    "aten.bincount.default",
    "aten.masked_select.default",
    "aten._unique2.default",
    "aten.unique_consecutive.default",
    "torchvision.nms.default",
}


class Waits(TorchDispatchMode):
    """Counts such operations, on whatever device; also the copies that ``tolist`` makes, of a GPU's tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        masked = name.startswith(("aten.index.Tensor", "aten.index_put")) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        sized = name == "aten.repeat_interleave.Tensor" and not (kwargs or {}).get("output_size")
        if name in _WAITING or masked or sized:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Waits:
        self._tolist = torch.Tensor.tolist
        counted, own = self.found, self._tolist

        def tolist(tensor: torch.Tensor) -> Any:
            counted["tolist"] += 1
            return own(tensor)

        torch.Tensor.tolist = tolist  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        torch.Tensor.tolist = self._tolist  # type: ignore[method-assign]
        super().__exit__(*exception)
