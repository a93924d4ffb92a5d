"""What the command line knows about CUDA: the thin seam to the part of the core that compiles and launches kernels.

The core's functions are looked up when they are needed, because a build may not have them.
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
    """Facts, as JSON has them.

    ``available`` and ``why`` not, ``torch_cuda``, ``devices`` and ``capability`` where there are any, ``kernels`` (are
    some of striate's), ``nvrtc`` and ``driver`` (versions) or ``nvrtc_missing`` and ``driver_missing`` (why).
    """
    available = torch.cuda.is_available()
    facts: dict[str, Any] = {"available": available, "torch_cuda": torch.version.cuda}
    if available:
        facts["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    else:
        built = torch.version.cuda is not None
        facts["why"] = "torch sees no CUDA device or driver" if built else "this torch was built without CUDA"
    facts["kernels"] = any(row["device"] == "cuda" for row in _core.kernels())
    told = _ask("cuda_status") or {}
    names = ("nvrtc", "nvrtc_missing", "driver", "driver_missing")
    return facts | {name: str(told[name]) for name in names if name in told}


def cuda_cache() -> list[dict[str, Any]]:
    """Compiled kernels on disk: ``name``, ``bytes``, ``path`` of their folder."""
    found = _ask("cuda_cache") or []
    folder = str((_ask("cuda_status") or {}).get("cache"))
    return [{"name": name, "bytes": size, "path": folder} for name, size in found]


def cuda_cache_clear() -> int:
    """Remove compiled kernels; how many there were."""
    return int(_ask("cuda_cache_clear") or 0)


def cuda_warm(line: str) -> str:
    """Compile what a problem line needs for every device; the row that will run. RuntimeError says what is missing."""
    if not hasattr(_core, "cuda_prepare"):
        raise RuntimeError("this build of striate has no CUDA kernels to compile")
    for device in range(torch.cuda.device_count()):
        _ask("cuda_prepare", line, device)
    return _core.explain(line)["row"]
