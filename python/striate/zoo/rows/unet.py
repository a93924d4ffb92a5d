"""U-shaped networks: segmentation, restoration, inpainting; images and volumes."""
# fmt: off

from typing import Any

from ..registry import Row, family
from ..registry import variant as v


def _row(name: str, paper: str, size: tuple[int, ...], licence: str, oracle: str = "count", **args: Any) -> Row:
    return Row(name, "UNet", args, size, paper=paper, licence=licence, classes=0, oracle=oracle)


UNET = family(_row("U-Net", "1505.04597", (572, 572), "GPL-3.0 (numbers only)", "github:milesial/Pytorch-UNet", widths=(64, 128, 256, 512, 1024)),
    v("unet", 31_037_698, classes=2),
    v("unet_bilinear", 17_263_042, classes=2, widths=(64, 128, 256, 512, 512), ups=(64, 64, 128, 256), up="aligned"))
_VOLUME: dict[str, Any] = {"norm": ("in", {"affine": True}), "act": "leaky_relu", "bias": True}
_SIX = (32, 64, 128, 256, 320, 320)
UNET3D = family(_row("3-D U-Net", "1606.06650", (128, 128, 128), "Apache-2.0", widths=_SIX, encoder=("convs", _VOLUME), decoder=("convs", _VOLUME), down="stride", merge="up_skip", deep="decoder"),
    v("unet_3d", 31_195_594, classes=2, channels=1, oracle="dynamic_network_architectures:PlainConvUNet"))


def _stu(scale: int, depth: int) -> dict[str, Any]:
    level = ("residuals", {**_VOLUME, "depth": depth})
    widths = tuple(scale * w for w in (1, 2, 4, 8, 16, 16))
    return {"widths": widths, "encoder": level, "decoder": level}


STU = family(_row("STU-Net", "2304.06716", (128, 128, 128), "Apache-2.0", "github:uni-medical/STU-Net", down="stride", up="nearest", merge="up_skip", deep="decoder"),
    v("stunet_s", 14_596_941, 130.0, classes=105, channels=1, **_stu(16, 1)),
    v("stunet_b", 58_262_669, 510.0, classes=105, channels=1, **_stu(32, 1)),
    v("stunet_l", 440_302_605, 3810.0, classes=105, channels=1, **_stu(64, 2)),
    v("stunet_h", 1_457_326_221, 12600.0, classes=105, channels=1, **_stu(96, 3)))


def _rsu(height: int, mid: int, flat: bool = False) -> tuple[str, dict[str, Any]]:
    return ("rsu", {"height": height, "mid": mid, "flat": flat})


_RSUS = [_rsu(7, 32), _rsu(6, 32), _rsu(5, 64), _rsu(4, 128), _rsu(4, 256, True), _rsu(4, 256, True)]
_RSUS_UP = [_rsu(7, 16), _rsu(6, 32), _rsu(5, 64), _rsu(4, 128), _rsu(4, 256, True)]
ISNET = family(_row("IS-Net", "2203.03041", (1024, 1024), "Apache-2.0", "github:xuebinqin/DIS", widths=(64, 128, 256, 512, 512, 512), ups=(64, 64, 128, 256, 512), encoder=_RSUS, decoder=_RSUS_UP, down="max_ceil", up="bilinear", merge="up_skip", out=(3, 0, True), deep="sides"),
    v("isnet", 44_046_790, classes=1, stem=(("convs", {"depth": 1, "stride": 2, "norm": "none", "act": "none"}), 64)),
    v("u2net", 44_009_869, oracle="count", classes=1, deep="fused", family="U2-Net", paper="2005.09007", size=(320, 320)))


def _naf(*depths: int) -> list[tuple[str, dict[str, int]]]:
    return [("naf", {"depth": n}) for n in depths]


_INTRO = {"depth": 1, "norm": "none", "act": "none"}
_W32, _W64 = tuple(32 << n for n in range(5)), tuple(64 << n for n in range(5))
_SIDD = {"encoder": _naf(2, 2, 4, 8, 12), "decoder": _naf(2, 2, 2, 2)}
_GOPRO = {"encoder": _naf(1, 1, 1, 28, 1), "decoder": _naf(1, 1, 1, 1)}
NAFNET = family(_row("NAFNet", "2204.04676", (256, 256), "MIT", down="conv2", up="shuffle", merge="add", out=(3, 3, True), tail="add"),
    v("nafnet_sidd_w32", 29_159_715, 16.0, "39.97 dB (SIDD)", oracle="spandrel:NAFNet", widths=_W32, stem=(("convs", _INTRO), 32), **_SIDD),
    v("nafnet_sidd_w64", 115_982_915, 65.0, "40.30 dB (SIDD)", oracle="spandrel:NAFNet", widths=_W64, stem=(("convs", _INTRO), 64), **_SIDD),
    v("nafnet_gopro_w32", 17_111_907, 16.0, "32.87 dB (GoPro)", oracle="spandrel:NAFNet", widths=_W32, stem=(("convs", _INTRO), 32), **_GOPRO),
    v("nafnet_gopro_w64", 67_888_835, 65.0, "33.71 dB (GoPro)", oracle="spandrel:NAFNet", widths=_W64, stem=(("convs", _INTRO), 64), **_GOPRO))


def _plain(*depths: int) -> list[tuple[str, dict[str, Any]]]:
    return [("convs", {"depth": n, "norm": "none"}) for n in depths]


CBDNET = family(_row("CBDNet", "1807.04686", (256, 256), "MIT", "github:IDKiro/CBDNet-pytorch", widths=(64, 128, 256), encoder=_plain(2, 3, 6), decoder=_plain(2, 3), down="avg", merge="add", out=(1, 3, True), form="blind"),
    v("cbdnet", 4_365_382, 0.0, "38.06 dB (DND)"))
FASTDVDNET = family(_row("FastDVDnet", "1907.01361", (96, 96), "MIT", "github:m-tassano/fastdvdnet", widths=(32, 64, 128), down="conv3", up="shuffle3", merge="add", out=(3, 3, False), form="video",
         encoder=["frames", ("convs", {}), ("convs", {"depth": 4})], decoder=[("convs", {"depth": 1}), ("convs", {})]),
    v("fastdvdnet", 2_479_096, channels=16))
# The reference registers its constant mask kernels as parameters: 51,550,757 and 65,708,581 with them.
PARTIAL = family(_row("Partial-conv U-Net", "1804.07723", (512, 512), "BSD-3-Clause", "github:naoto0804/pytorch-inpainting-with-partial-conv", form="partial"),
    v("pconv_unet_l7", 25_779_796, channels=4, widths=(64, 128, 256, 512, 512, 512, 512)),
    v("pconv_unet_l8", 32_859_732, channels=4, widths=(64, 128, 256, 512, 512, 512, 512, 512)))
ROWS = [*UNET, *UNET3D, *STU, *ISNET, *NAFNET, *CBDNET, *FASTDVDNET, *PARTIAL]
