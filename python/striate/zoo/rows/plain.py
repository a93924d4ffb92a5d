"""Stacks of layers: classifiers, raw audio and restoration."""
# fmt: off

from typing import Any

from ..registry import Row, family
from ..registry import variant as v

_FC = (("act", {"kind": "relu"}), "dropout")
_WIDE = (("linear", {"width": 4096}), *_FC, ("linear", {"width": 4096}), *_FC)


def _row(name: str, paper: str, oracle: str = "torchvision:", licence: str = "BSD-3-Clause", **args: Any) -> Row:
    return Row(name, "Plain", args, paper=paper, oracle=oracle, licence=licence)


ALEXNET = family(_row("AlexNet", "1404.5997", layers="c64k11s4p2 | m3s2 c192k5 | m3s2 c384k3 c256k3 c256k3 | m3s2", head=(("grid_pool", {"size": 6}), "dropout", *_WIDE[:-1])),
    v("alexnet", 61_100_840, 0.71, "56.5"))


def _vgg(*widths: str) -> str:
    """VGG by stage: "64 64" is two 3x3 convolutions; a pool follows each stage."""
    stages = [" ".join(f"c{width}k3" for width in stage.split()) for stage in widths]
    return f"{stages[0]} m2s2 {stages[1]} | m2s2 {stages[2]} | m2s2 {stages[3]} | m2s2 {stages[4]} | m2s2"


_VGG = {
    11: _vgg("64", "128", "256 256", "512 512", "512 512"),
    13: _vgg("64 64", "128 128", "256 256", "512 512", "512 512"),
    16: _vgg("64 64", "128 128", "256 256 256", "512 512 512", "512 512 512"),
    19: _vgg("64 64", "128 128", "256 256 256 256", "512 512 512 512", "512 512 512 512")}
_VGG_HEAD = (("grid_pool", {"size": 7}), *_WIDE)
VGG = family(_row("VGG", "1409.1556", head=_VGG_HEAD),
    v("vgg11", 132_863_336, 7.61, "69.1", layers=_VGG[11]),
    v("vgg13", 133_047_848, 11.31, "70.0", layers=_VGG[13]),
    v("vgg16", 138_357_544, 15.47, "71.6", layers=_VGG[16]),
    v("vgg19", 143_667_240, 19.63, "72.4", layers=_VGG[19]),
    v("vgg11_bn", 132_868_840, 7.62, "70.4", layers=_VGG[11], norm="bn"),
    v("vgg13_bn", 133_053_736, 11.33, "71.6", layers=_VGG[13], norm="bn"),
    v("vgg16_bn", 138_365_992, 15.5, "73.4", layers=_VGG[16], norm="bn"),
    v("vgg19_bn", 143_678_248, 19.66, "74.2", layers=_VGG[19], norm="bn"),
    v("pd_vgg16_bn", 138_365_992, 15.5, "", oracle="github:NVIDIA/partialconv", paper="1811.11718", family="VGG, partial padding", layers=_VGG[16], norm="bn", partial_padding=True))


def _simple(base: int, scale: float) -> str:
    """SimpleNet for ImageNet: its strides lie in the first four layers; the large one is half as wide again, but not at its end."""
    wide = base == 96
    first, middle = (128, [192] * 5) if wide else (64, [128] * 5)
    tail = [320, 320, 320, 640, 2560, 320, 320] if wide else [256, 256, 256, 512, 2048, 256, 256]
    w = [round(scale * c) for c in (first, *middle, *tail)]
    return (f"c{w[0]}k3s2 c{w[1]}k3s2 c{w[2]}k3 | c{w[3]}k3s2 c{w[4]}k3 c{w[5]}k3 | m2s2 c{w[6]}k3 c{w[7]}k3 c{w[8]}k3 c{w[9]}k3 | "
            f"m2s2 c{w[10]} c{w[11]} c{w[12]}k3")


_CIFAR: dict[str, Any] = {"size": (32, 32), "classes": 10}
CIFAR = [
    *family(_row("NIN", "1312.4400", "paper", "", head="conv", layers="c192k5 c160 c96 | m3s2p1 c192k5 c192 c192 | a3s2p1 c192k3 c192"),
        v("nin_cifar", 966_986, 0.0, "89.6 (CIFAR-10)", **_CIFAR)),
    *family(_row("All-CNN", "1412.6806", "paper", "", head="conv"),
        v("all_cnn_a", 1_254_250, 0.0, "", layers="c96k5 | c96k3s2 c192k5 | c192k3s2 c192k3p0 c192", **_CIFAR),
        v("all_cnn_b", 1_300_618, 0.0, "", layers="c96k5 c96 | c96k3s2 c192k5 c192 | c192k3s2 c192k3p0 c192", **_CIFAR),
        v("all_cnn_c", 1_369_738, 0.0, "90.9 (CIFAR-10)", layers="c96k3 c96k3 | c96k3s2 c192k3 c192k3 | c192k3s2 c192k3p0 c192", **_CIFAR)),
    *family(_row("SimpleNet", "1608.06037", "github:Coderx7/SimpleNet_Pytorch", "MIT", norm="bn", head=("max_pool",), bias=True, layers="c64k3 c128k3 c128k3 c128k3 | m2s2 c128k3 c128k3 c256k3 | m2s2 c256k3 c256k3 | m2s2 c512k3 c2048 c256 | m2s2 c256k3"),
        v("simplenet_cifar", 5_498_378, 0.0, "95.5 (CIFAR-10)", **_CIFAR),
        *(v(f"simplenet_{name}", params, 0.0, top1, layers=_simple(base, scale)) for name, params, top1, base, scale in (
            ("small_m2_05", 1_506_792, "61.7", 64, 0.5),
            ("small_m2_075", 3_287_272, "68.5", 64, 0.75),
            ("5m_m2", 5_752_808, "72.0", 64, 1),
            ("9m_m2", 9_508_968, "74.2", 96, 1))))]
SAMPLE_CNN = family(_row("SampleCNN", "1703.01789", "github:kyungyunlee/sampleCNN-pytorch", "MIT", norm="bn", head=("flatten", "dropout"), layers="c128k3s3p0 " + "".join(f"| c{width}k3 m3s3 " for width in (128, 128, 256, 256, 256, 256, 256, 256, 512)) + "c512k3"),
    v("samplecnn_3_9", 2_394_162, 0.0, "0.9055 (MagnaTagATune AUC)", size=(59049,), classes=50, channels=1, fixed=True))
_PATCH: dict[str, Any] = {"size": (64, 64), "classes": 0}
_GRAY: dict[str, Any] = {**_PATCH, "channels": 1}
DNCNN = family(_row("DnCNN", "1608.03981", "spandrel:DnCNN", "MIT", norm=("bn", {"eps": 1e-4}), first_norm="none", tail="subtract"),
    v("dncnn_s", 557_057, 0.0, "29.23 dB (BSD68, sigma 25)", layers="c64k3 " + "c64k3 " * 15 + "c1k3!", **_GRAY),
    v("dncnn_b", 665_921, 0.0, "", norm="none", layers="c64k3 " + "c64k3 " * 18 + "c1k3!", **_GRAY),
    v("dncnn_b_color", 668_227, 0.0, "", norm="none", layers="c64k3 " + "c64k3 " * 18 + "c3k3!", **_PATCH))
SUPER = [
    *family(_row("ESPCN", "1609.05158", "github:yjn870/ESPCN-pytorch", "", act="tanh"),
        v("espcn_x3", 22_729, 0.0, "33.13 dB (Set5)", layers="c64k5 c32k3 c9k3!", upscale=3, **_GRAY),
        v("espcn_x4", 24_752, 0.0, "", layers="c64k5 c32k3 c16k3!", upscale=4, **_GRAY)),
    *family(_row("RFDN", "2009.11551", "github:njulj/RFDN", "MIT"),
        v("rfdn_x2", 417_212, 0.0, "", layers=("c50k3!", ("collected", {}), "c12k3!"), upscale=2, **_PATCH),
        v("rfdn_x3", 423_977, 0.0, "", layers=("c50k3!", ("collected", {}), "c27k3!"), upscale=3, **_PATCH),
        v("rfdn_x4", 433_448, 0.0, "", layers=("c50k3!", ("collected", {}), "c48k3!"), upscale=4, **_PATCH))]
# One set of weights serves both passes of a block's dual attention and one slope all of them, as in the reference.
MIRNET = family(_row("MIRNet", "2003.06792", "github:swz30/MIRNet", "academic use only (numbers only)", bias=False, tail="add"),
    v("mirnet", 31_787_419, 0.0, "39.72 dB (SIDD)", layers=("c64k3!", ("streams", {}), "c3k3!"), **_PATCH))
IDF = family(_row("IDF", "2508.19649", "github:dongjinkim9/IDF", "Apache-2.0"),
    v("idf", 49_021, layers=(("refiltered", {}),), **_PATCH))
ROWS = [*ALEXNET, *VGG, *CIFAR, *SAMPLE_CNN, *DNCNN, *SUPER, *MIRNET, *IDF]
