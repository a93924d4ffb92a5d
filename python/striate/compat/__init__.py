"""Drop-ins under the names of the published packages, one module for each."""

from .flashfftconv import FlashFFTConv, FrequencySparseFFTConv, PartialFFTConv

__all__ = ["FlashFFTConv", "FrequencySparseFFTConv", "PartialFFTConv"]
