"""Inception networks."""
# fmt: off

from ..registry import Row, family
from ..registry import variant as v


def _inception(a: int, b: tuple[int, int], c: tuple[int, int], d: int) -> str:
    """GoogLeNet's module; the reference filters with 3x3 where the paper has 5x5."""
    return f"{a}, {b[0]} {b[1]}k3, {c[0]} {c[1]}k3, max {d}"


GOOGLENET = family(Row("GoogLeNet", "Branch", {"stem": ["64k7s2p"], "stages": [
        (4, ["max2ceil", "64", "192k3"]),
        (8, ["max2ceil", _inception(64, (96, 128), (16, 32), 32), _inception(128, (128, 192), (32, 96), 64)]),
        (16, ["max2ceil", _inception(192, (96, 208), (16, 48), 64), _inception(160, (112, 224), (24, 64), 64), _inception(128, (128, 256), (24, 64), 64), _inception(112, (144, 288), (32, 64), 64), _inception(256, (160, 320), (32, 128), 128)]),
        (32, ["pool2ceil", _inception(256, (160, 320), (32, 128), 128), _inception(384, (192, 384), (48, 128), 128)])]}, paper="1409.4842", oracle="torchvision:", licence="BSD-3-Clause"),
    v("googlenet", 6_624_904, 1.5, "69.8"))
_STEM = ["32k3s2", "32k3v", "64k3"]
_HALF = (4, ["max2", "80", "192k3v"])


def _a3(pool: int) -> str:
    return f"64, 48 64k5, 64 96k3 96k3, avgp {pool}"


def _b3(w: int) -> str:
    return f"192, {w} {w}k1x7 192k7x1, {w} {w}k7x1 {w}k1x7 {w}k7x1 192k1x7, avgp 192"


V3 = family(Row("Inception-v3", "Branch", {"stem": _STEM, "stages": [
        _HALF,
        (8, ["max2", _a3(32), _a3(64), _a3(64)]),
        (16, ["384k3s2, 64 96k3 96k3s2, max2", _b3(128), _b3(160), _b3(160), _b3(192)]),
        (32, ["192 320k3s2, 192 192k1x7 192k7x1 192k3s2, max2", (2, "320, 384 384k1x3+384k3x1, 448 384k3 384k1x3+384k3x1, avgp 192")])]}, size=(299, 299), paper="1512.00567", oracle="timm:", licence="Apache-2.0"),
    v("inception_v3", 23_834_568, 5.73, "77.5"))
V4 = family(Row("Inception-v4", "Branch", {"stem": _STEM, "stages": [
        (4, ["max2, 96k3s2", "64 96k3v, 64 64k1x7 64k7x1 96k3v"]),
        (8, ["192k3s2, max2", (4, "96, 64 96k3, 64 96k3 96k3, avg 96")]),
        (16, ["384k3s2, 192 224k3 256k3s2, max2", (7, "384, 192 224k1x7 256k7x1, 192 192k7x1 224k1x7 224k7x1 256k1x7, avg 128")]),
        (32, ["192 192k3s2, 256 256k1x7 320k7x1 320k3s2, max2", (3, "256, 384 256k1x3+256k3x1, 384 448k3x1 512k1x3 256k1x3+256k3x1, avg 256")])]}, size=(299, 299), paper="1602.07261", oracle="timm:", licence="Apache-2.0"),
    v("inception_v4", 42_679_816, 12.28, "80.1"))
RESNET_V2 = family(Row("Inception-ResNet-v2", "Branch", {"stem": _STEM, "stages": [
        _HALF,
        (8, ["max2", "96, 48 64k5, 64 96k3 96k3, avg 64", (10, "32, 32 32k3, 32 48k3 64k3", 0.17, "relu")]),
        (16, ["384k3s2, 256 256k3 384k3s2, max2", (20, "192, 128 160k1x7 192k7x1", 0.1, "relu")]),
        (32, ["256 384k3s2, 256 288k3s2, 256 288k3 320k3s2, max2", (9, "192, 192 224k1x3 256k3x1", 0.2, "relu"), (1, "192, 192 224k1x3 256k3x1", 1.0, "none"), "1536"])]}, size=(299, 299), paper="1602.07261", oracle="timm:", licence="Apache-2.0"),
    v("inception_resnet_v2", 55_843_464, 13.18, "80.4"))
ROWS = [*GOOGLENET, *V3, *V4, *RESNET_V2]
