"""The folder in which striate keeps what it measured and compiled, and the file with the rates of this machine."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .environment import cores, cpu_model

VARIABLE = "STRIATE_CACHE_DIR"


def folder() -> Path:
    """``STRIATE_CACHE_DIR``, or ``striate`` in the folder that the platform has for caches."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "striate"


def rates_file() -> Path:
    """Where the rates are."""
    return folder() / "roofline.json"


def machine_key() -> str:
    """What rates belong to: the processor, the processors this process may use, torch, the device."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return f"{cpu_model()} | {cores()} cores | torch {torch.__version__} | {device}"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(rates_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@cache
def rates() -> dict[str, float]:
    """Rates of this machine by name, from the file as it was when first asked; what is added lives in the process."""
    known = _read().get(machine_key(), {})
    return {str(key): float(value) for key, value in known.items()}


def forget() -> None:
    """Start without rates; the file stays until ``save`` or ``clear``."""
    rates().clear()


def save(better: bool = True) -> Path:
    """Write this machine's rates; with ``better`` a higher rate on file is kept, since a peak is a maximum."""
    everything, path = _read(), rates_file()
    old = everything.get(machine_key(), {}) if better else {}
    mine = rates()
    for key, value in old.items():
        mine[key] = max(float(value), mine.get(key, 0.0))
    everything[machine_key()] = mine
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def clear() -> bool:
    """Remove the file; whether there was one."""
    rates.cache_clear()
    with suppress(FileNotFoundError):
        rates_file().unlink()
        return True
    return False
