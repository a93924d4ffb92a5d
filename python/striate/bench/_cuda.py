"""What the command line knows about CUDA: the thin seam to the part of the core that compiles and launches kernels.

The core's functions are looked up when they are needed, because a build may not have them: ``cuda_status() -> dict``,
``cuda_cache() -> list[dict]``, ``cuda_cache_clear() -> int`` and ``cuda_warm(line) -> dict``.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _core


def _ask(name: str, *given: Any) -> Any:
    """What the core answers, or None if this build cannot be asked."""
    function = getattr(_core, name, None)
    return None if function is None else function(*given)


def cuda_status() -> dict[str, Any]:
    """Facts: ``available``, ``why`` not, ``devices``, ``torch_cuda``, ``driver``, ``nvrtc``, ``kernels`` of striate."""
    available = torch.cuda.is_available()
    facts: dict[str, Any] = {"available": available, "torch_cuda": torch.version.cuda}
    if available:
        facts["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    else:
        built = torch.version.cuda is not None
        facts["why"] = "torch sees no CUDA device or driver" if built else "this torch was built without CUDA"
    facts["kernels"] = any(row["device"] == "cuda" for row in _core.kernels())
    return facts | (_ask("cuda_status") or {})


def cuda_cache() -> list[dict[str, Any]]:
    """Compiled kernels on disk: ``name``, ``bytes``, ``path``."""
    return list(_ask("cuda_cache") or [])


def cuda_cache_clear() -> int:
    """Remove compiled kernels; how many there were."""
    return int(_ask("cuda_cache_clear") or 0)


def cuda_warm(line: str) -> dict[str, Any]:
    """Compile what a problem line needs; RuntimeError if this build has no CUDA kernels."""
    made = _ask("cuda_warm", line)
    if made is None:
        raise RuntimeError("this build of striate has no CUDA kernels to compile")
    return dict(made)
