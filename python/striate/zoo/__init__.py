"""Convolutional networks as rows of data on nine skeletons.

    import striate.zoo as zoo

    model = zoo.create_model("convnext_tiny", num_classes=10, conv="striate")

A row names a skeleton and its arguments; :func:`list_models` lists the rows, :func:`info` shows one,
:func:`create_model` builds it and :func:`load_from` fills it with weights of another implementation.
"""

from ..nn._transfer import first_use, transfer
from .network import Feature, FeatureNet, Head, Network
from .registry import Row, create_model, info, list_models, load_from

__all__ = [
    "Feature",
    "FeatureNet",
    "Head",
    "Network",
    "Row",
    "create_model",
    "first_use",
    "info",
    "list_models",
    "load_from",
    "transfer",
]
