"""Networks of residual stages, images and videos."""
# fmt: off

from typing import Any

from ..registry import Row, family
from ..registry import variant as v

R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_DEEP = ((32, 3, 2), (32, 3, 1), (64, 3, 1))
_SPACE = ((1, 7, 7), (1, 2, 2))
_CUBE = ("chain", {"layers": ((64, (3, 7, 7), (1, 2, 2)),), "pool": 0})


def _row(name: str, paper: str, oracle: str = "timm:", licence: str = "Apache-2.0", **args: Any) -> Row:
    return Row(name, "Residual", args, paper=paper, oracle=oracle, licence=licence)


RESNET = [
    *family(_row("ResNet", "1512.03385", stage="basic"),
        v("resnet18", 11_689_512, 1.82, "69.8", depths=(2, 2, 2, 2)),
        v("resnet34", 21_797_672, 3.67, "73.3", depths=R50)),
    *family(_row("ResNet (bottleneck)", "1512.03385"),
        v("resnet50", 25_557_032, 4.11, "76.1", depths=R50),
        v("resnet101", 44_549_160, 7.83, "77.4", depths=R101),
        v("resnet152", 60_192_808, 11.56, "78.3", depths=R152)),
    *family(_row("ResNet-D", "1812.01187", stem=("chain", {"layers": _DEEP}), options={"avg_down": True}),
        v("resnet50d", 25_576_264, 4.35, "80.5", depths=R50)),
    *family(_row("ResNeXt", "1611.05431"),
        v("resnext50_32x4d", 25_028_904, 4.26, "77.6", depths=R50, options={"groups": 32, "base": 4}),
        v("resnext101_32x8d", 88_791_336, 16.48, "79.3", depths=R101, options={"groups": 32, "base": 8})),
    *family(_row("Wide ResNet", "1605.07146", options={"base": 128}),
        v("wide_resnet50_2", 68_883_240, 11.43, "78.5", depths=R50),
        v("wide_resnet101_2", 126_886_696, 22.8, "78.8", depths=R101)),
    *family(_row("ResNet-RS", "2103.07579", stem=("chain", {"layers": (*_DEEP, (64, 3, 2)), "pool": 0}), options={"avg_down": True, "squeeze": True}),
        v("resnetrs50", 35_691_912, 2.29, "77.9", depths=R50, size=(160, 160)),
        v("resnetrs101", 63_618_696, 6.04, "80.7", depths=R101, size=(192, 192)),
        v("resnetrs152", 86_621_576, 15.59, "82.9", depths=R152, size=(256, 256)),
        v("resnetrs200", 93_209_992, 20.18, "83.9", depths=(3, 24, 36, 3), size=(256, 256)),
        v("resnetrs270", 129_861_448, 27.06, "83.6", depths=(4, 29, 53, 4), size=(256, 256)),
        v("resnetrs350", 163_956_168, 43.67, "84.3", depths=(4, 36, 72, 4), size=(288, 288)),
        v("resnetrs420", 191_891_656, 64.2, "84.2", depths=(4, 44, 87, 4), size=(320, 320)))]
_DENSE: dict[str, Any] = {"stage": "dense", "final": "norm_act"}
DENSENET = family(_row("DenseNet", "1608.06993", **_DENSE),
    v("densenet121", 7_978_856, 2.87, "74.8", depths=(6, 12, 24, 16), options={"growth": 32}),
    v("densenet161", 28_681_000, 7.79, "77.4", depths=(6, 12, 36, 24), options={"growth": 48}, stem=("chain", {"layers": ((96, 7, 2),)})),
    v("densenet169", 14_149_480, 3.4, "75.9", depths=(6, 12, 32, 32), options={"growth": 32}),
    v("densenet201", 20_013_928, 4.34, "77.3", depths=(6, 12, 48, 32), options={"growth": 32}))
VOVNET = family(_row("VoVNet", "1904.09730", stage="one_shot", stem=("chain", {"layers": ((64, 3, 2), (64, 3, 1), (128, 3, 2)), "pool": 0}), options={"mids": (128, 160, 192, 224), "widths": (256, 512, 768, 1024)}),
    v("vovnet39a", 22_600_296, 7.09, "76.8", depths=(1, 1, 2, 2)),
    v("vovnet57a", 36_640_296, 8.95, "77.7", depths=(1, 1, 4, 3)))
_728 = ((728,) * 3, 1)
_TAIL = ((1536, 1536, 2048), 1, "noskip", "nolead")
_ENTRY = [[((128,) * 3, 2)], [((256,) * 3, 2)], [((728,) * 3, 2), _728], [((728, 1024, 1024), 2), _TAIL]]
_ENTRY71 = [[((128,) * 3, 2)], [((256,) * 3, 1), ((256,) * 3, 2)], [((728,) * 3, 1), ((728,) * 3, 2), _728], _ENTRY[3]]
XCEPTION = [
    *family(_row("Xception", "1610.02357", stage="separable", stem=("chain", {"layers": ((32, 3, 2), (64, 3, 1)), "padding": 0, "pool": 0}),
             options={"aligned": False, "table": [[((128, 128), 2, "nolead")], [((256, 256), 2)], [((728, 728), 2), _728], [((728, 1024), 2), ((1536, 2048), 1, "noskip", "nolead")]]}),
        v("legacy_xception", 22_855_952, 8.4, "79.1", size=(299, 299), depths=(1, 1, 9, 2))),
    *family(_row("Xception (aligned)", "1802.02611", stage="separable", stem=("chain", {"layers": ((32, 3, 2), (64, 3, 1)), "pool": 0})),
        v("xception41", 26_969_560, 9.28, "78.5", size=(299, 299), depths=(1, 1, 9, 2), options={"aligned": True, "table": _ENTRY}),
        v("xception65", 39_916_312, 13.96, "83.2", size=(299, 299), depths=(1, 1, 17, 2), options={"aligned": True, "table": _ENTRY}),
        v("xception71", 42_338_736, 18.09, "79.9", size=(299, 299), depths=(1, 2, 18, 2), options={"aligned": True, "table": _ENTRY71}))]
_VIDEO: dict[str, Any] = {"size": (16, 112, 112), "classes": 400}
VIDEO = family(_row("Video ResNet", "1711.11248", "torchvision:video.", "BSD-3-Clause", stage="basic", depths=(2, 2, 2, 2)),
    v("r3d_18", 33_371_472, 40.7, "63.2 (Kinetics-400)", oracle="torchvision:video.r3d_18", stem=_CUBE, **_VIDEO),
    v("mc3_18", 11_695_440, 43.34, "64.0 (Kinetics-400)", oracle="torchvision:video.mc3_18", stem=_CUBE, options={"filter": ["conv", *[("conv", {"kernel": (1, 3, 3)})] * 3], "stride": (1, 2, 2)}, **_VIDEO),
    v("r2plus1d_18", 31_505_325, 40.52, "67.5 (Kinetics-400)", oracle="torchvision:video.r2plus1d_18", stem=("chain", {"layers": ((45, *_SPACE), (64, (3, 1, 1), 1)), "pool": 0}), options={"filter": "factored"}, **_VIDEO))
P3D = family(_row("P3D ResNet", "1711.10305", "github:qijiezhao/pseudo-3d-pytorch", "MIT", stage="pseudo_3d", stem=("chain", {"layers": ((64, *_SPACE),), "pool": (2, 3, 3)})),
    v("p3d63", 25_745_232, size=(16, 160, 160), classes=400, depths=R50, options={"starts": (0, 3, 7, 13)}),
    v("p3d131", 48_088_400, size=(16, 160, 160), classes=400, depths=R101, options={"starts": (0, 3, 7, 30)}),
    v("p3d199", 66_492_240, size=(16, 160, 160), classes=400, depths=R152, options={"starts": (0, 3, 11, 47)}))
REDNET = family(_row("RedNet", "2103.06255", "github:d-li14/involution", "MIT", stem="involuted", options={"filter": "involution"}),
    v("rednet26", 9_233_166, 1.73, "76.0", depths=(1, 2, 4, 1)),
    v("rednet38", 12_386_986, 0.0, "77.5", depths=(2, 3, 5, 2)),
    v("rednet50", 15_540_806, 2.71, "78.4", depths=R50),
    v("rednet101", 25_652_950, 0.0, "78.9", depths=R101),
    v("rednet152", 33_984_582, 6.79, "79.1", depths=R152))
HOSTED = [
    *family(_row("ResNet, partial padding", "1811.11718", "github:NVIDIA/partialconv", "BSD-3-Clause", partial_padding=True),
        v("pd_resnet18", 11_689_512, 1.82, "", depths=(2, 2, 2, 2), stage="basic"),
        v("pd_resnet50", 25_557_032, 4.11, "", depths=R50)),
    *family(_row("ResNet-SPD", "2208.03641", "layers", "MIT", options={"filter": "space_to_depth"}),
        v("resnet18_spd", 16_334_376, 0.0, "", depths=(2, 2, 2, 2), stage="basic"),
        v("resnet50_spd", 34_846_760, 0.0, "", depths=R50)),
    *family(_row("ResNet-DCLS", "2112.03740", "layers", "MIT", options={"filter": "dcls"}),
        v("resnet50_dcls", 25_557_032, 0.0, "", depths=R50))]
ROWS = [*RESNET, *DENSENET, *VOVNET, *XCEPTION, *VIDEO, *P3D, *REDNET, *HOSTED]
