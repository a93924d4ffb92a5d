"""Drop-in replacements for other packages' modules."""

from .flashfftconv import FlashFFTConv, FrequencySparseFFTConv, PartialFFTConv

__all__ = ["FlashFFTConv", "FrequencySparseFFTConv", "PartialFFTConv"]
