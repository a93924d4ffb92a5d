"""Detection and segmentation."""
# fmt: off

from typing import Any

from ..registry import Row, family
from ..registry import variant as v

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
# Stages that keep their extents and dilate: an output stride of 8.
_ATROUS = {"stride": [1, 2, 1, 1], "dilation": [1, 1, 2, 4]}


def _resnet(depths: tuple[int, ...], **options: Any) -> tuple[str, dict[str, Any]]:
    return ("Residual", {"depths": depths, "options": options})


def _mobile(tail: str) -> tuple[str, dict[str, Any]]:
    """MobileNetV3-large without its head; ``tail`` is what follows the stage of stride 16."""
    blocks = (
        "ds_r1_k3_s1_e1_c16_nre ir_r1_k3_s2_e4_c24_nre ir_r1_k3_s1_e3_c24_nre ir_r3_k5_s2_e3_c40_se0.25_nre ir_r1_k3_s2_e6_c80 "
        "ir_r1_k3_s1_e2.5_c80 ir_r2_k3_s1_e2.3_c80 ir_r2_k3_s1_e6_c112_se0.25 ")
    style = {"act": "hardswish", "stem": 16, "squeeze": ("expanded", "round"), "squeeze_act": "relu", "gate": "hardsigmoid"}
    return ("IRB", {"blocks": blocks + tail, "norm": ("bn", {"eps": 1e-3}), "head": (), **style})


# The first convolution is padded by 100, so that the deepest filter, of 7x7 and unpadded, finds room; pools round up.
_FCN_VGG = "c64k3p100 c64k3 m2s2! c128k3 c128k3 m2s2! c256k3 c256k3 c256k3 m2s2! | c512k3 c512k3 c512k3 m2s2! | c512k3 c512k3 c512k3 m2s2!"
_LARGE_FOV = ("c64k3 c64k3 m3s2p1 c128k3 c128k3 m3s2p1 | c256k3 c256k3 c256k3 m3s2p1 | c512k3 c512k3 c512k3 m3s1p1 "
              "c512k3d2p2 c512k3d2p2 c512k3d2p2 m3s1p1")


def _row(name: str, paper: str, size: int, classes: int, oracle: str = "torchvision:", licence: str = "BSD-3-Clause", **args: Any) -> Row:
    return Row(name, "Dense", args, (size, size), paper=paper, licence=licence, classes=classes, oracle=oracle)


DETECTION = [
    *family(_row("RetinaNet", "1708.02002", 800, 91, backbone=_resnet(R50), levels=(1, 2, 3), neck="fpn", head="retina"),
        v("retinanet_resnet50_fpn", 34_068_119, 151.54, "36.4 AP (COCO)", oracle="torchvision:detection.retinanet_resnet50_fpn")),
    *family(_row("SSDLite", "1905.02244", 320, 91, levels=(2, 3), neck="extras", head="ssdlite", backbone=_mobile("cn_r1_k1_s1_c672 ds_r1_k5_s2_c80_se0.25 ir_r2_k5_s1_e6_c80_se0.25 cn_r1_k1_s1_c480")),
        v("ssdlite320_mobilenet_v3_large", 3_440_060, 0.58, "21.3 AP (COCO)", oracle="torchvision:detection.ssdlite320_mobilenet_v3_large"))]
SEGMENTATION = [
    *family(_row("FCN", "1411.4038", 520, 21, head="fcn"),
        v("fcn_resnet50", 32_957_013, 152.72, "60.5 mIoU (VOC)", oracle="torchvision:segmentation.fcn_resnet50", backbone=_resnet(R50, **_ATROUS)),
        v("fcn_resnet101", 51_949_141, 232.74, "63.7 mIoU (VOC)", oracle="torchvision:segmentation.fcn_resnet101", backbone=_resnet(R101, **_ATROUS))),
    *family(_row("FCN (VGG)", "1411.4038", 500, 21, oracle="github:wkentaro/pytorch-fcn", licence="MIT", backbone=("Plain", {"layers": _FCN_VGG})),
        v("fcn32s_vgg16", 136_152_917, levels=(-1,), head=("skips", {"crops": (19,)})),
        v("fcn16s_vgg16", 134_815_994, levels=(-2, -1), head=("skips", {"crops": (5, 27)})),
        v("fcn8s_vgg16", 134_489_759, 0.0, "62.2 mIoU (VOC)", levels=(-3, -2, -1), head=("skips", {"crops": (5, 9, 31)}))),
    *family(_row("DeepLab v1 and v2", "1606.00915", 513, 21, oracle="count", licence="MIT"),
        v("deeplab_largefov_vgg16", 20_505_429, paper="1412.7062", oracle="paper", head="deeplab_v1", backbone=("Plain", {"layers": _LARGE_FOV})),
        v("deeplabv2_resnet101", 44_048_532, 0.0, "79.7 mIoU (VOC)", head="deeplab_v2", backbone=_resnet(R101, **_ATROUS))),
    *family(_row("DeepLab v3", "1706.05587", 520, 21, head="deeplab"),
        v("deeplabv3_resnet50", 39_638_869, 178.72, "66.4 mIoU (VOC)", oracle="torchvision:segmentation.deeplabv3_resnet50", backbone=_resnet(R50, **_ATROUS)),
        v("deeplabv3_resnet101", 58_630_997, 258.74, "67.4 mIoU (VOC)", oracle="torchvision:segmentation.deeplabv3_resnet101", backbone=_resnet(R101, **_ATROUS)),
        v("deeplabv3_mobilenet_v3_large", 11_025_477, 10.45, "60.3 mIoU (VOC)", oracle="torchvision:segmentation.deeplabv3_mobilenet_v3_large", backbone=_mobile("ir_r3_k5_s1_d2_e6_c160_se0.25 cn_r1_k1_s1_c960"))),
    *family(_row("SCNN", "1712.06080", 288, 5, head="scnn", backbone=("Plain", {"norm": "bn", "layers": ("c64k3 c64k3 m2s2 c128k3 c128k3 | m2s2 c256k3 c256k3 c256k3 | m2s2 c512k3 c512k3 c512k3 c512k3d2p2 c512k3d2p2 c512k3d2p2")})),
        v("scnn_vgg16", 20_165_573, 0.0, "96.53 (TuSimple)", size=(288, 800), oracle="github:harryhan618/SCNN_Pytorch", licence="MIT"))]
_A = {"neck": ("upward", {"inner": (64, 128, 256, 512), "outs": (128,) * 4}), "head": "ffnet"}
_B = {"neck": ("upward", {"inner": (64, 128, 128, 256), "outs": (96, 96, 64, 32)}), "head": ("ffnet", {"width": 256, "last": 3})}
_NARROW = {"stage": "basic", "stem": ("chain", {"layers": ((64, 3, 2), (64, 3, 2), (64, 3, 1)), "pool": 0}), "options": {"width": [64, 48, 40, 40]}}


def _basic(*depths: int, **args: Any) -> tuple[str, dict[str, Any]]:
    return ("Residual", {"depths": depths, "stage": "basic", **args})


FFNET = family(Row("FFNet (segmentation)", "Dense", {"levels": (0, 1, 2, 3)}, (1024, 2048), paper="2206.08236", licence="BSD-3-Clause", classes=19, oracle="github:Qualcomm-AI-research/FFNet"),
    v("ffnet_seg_150_aaa", 98_843_475, 0.0, "84.4 mIoU (Cityscapes)", backbone=_basic(16, 18, 28, 12), **_A),
    v("ffnet_seg_86_aaa", 53_987_155, 0.0, "83.2 mIoU (Cityscapes)", backbone=_basic(8, 12, 16, 6), **_A),
    v("ffnet_seg_50_aaa", 28_553_043, 0.0, "79.6 mIoU (Cityscapes)", backbone=_resnet(R50), **_A),
    v("ffnet_seg_122n_cbb", 51_393_555, 0.0, "83.7 mIoU (Cityscapes)", backbone=_basic(0, 16, 24, 20, **_NARROW), **_B),
    v("ffnet_seg_46n_cbb", 20_214_035, 0.0, "81.9 mIoU (Cityscapes)", backbone=_basic(0, 6, 8, 8, **_NARROW), **_B))
ROWS = [*DETECTION, *SEGMENTATION, *FFNET]
