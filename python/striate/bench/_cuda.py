"""What the command line knows about CUDA: the thin seam to the part of the core that compiles and launches kernels."""

from __future__ import annotations

from typing import Any

import torch

from .. import _core


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
    told = _core.cuda_status()
    names = ("nvrtc", "nvrtc_missing", "driver", "driver_missing")
    return facts | {name: str(told[name]) for name in names if name in told}


def cuda_cache() -> list[dict[str, Any]]:
    """Compiled kernels on disk: ``name``, ``bytes``, ``path`` of their folder."""
    folder = str(_core.cuda_status().get("cache"))
    return [{"name": name, "bytes": size, "path": folder} for name, size in _core.cuda_cache()]


def cuda_cache_clear() -> int:
    """Remove compiled kernels; how many there were."""
    return _core.cuda_cache_clear()


def cuda_warm(line: str) -> str:
    """Compile what a problem line needs for every device; the row that will run. RuntimeError says what is missing."""
    for device in range(torch.cuda.device_count()):
        _core.cuda_prepare(line, device)
    return _core.explain(line)["row"]
