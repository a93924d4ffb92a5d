"""Inverted residual networks."""
# fmt: off

from typing import Any

from ..registry import Row, family
from ..registry import variant as v


def _row(name: str, blocks: str, paper: str, **args: Any) -> Row:
    return Row(name, "IRB", {"blocks": blocks, **args}, paper=paper, oracle="timm:", licence="Apache-2.0")


def _head(width: int, act: str, norm: Any = "bn") -> tuple[Any, ...]:
    return (("conv", {"width": width, "act": act, "norm": norm}), "pool")


def _late(width: int, bias: bool = True) -> tuple[Any, ...]:
    """Pooling before the last pointwise layer (MobileNetV3)."""
    return (("pool", {"keepdim": True}), ("conv", {"width": width, "norm": "none", "act": "hardswish", "bias": bias}), "flatten")


V1 = family(_row("MobileNetV1", "ds_r1_k3_s1_c64_noskip_act ds_r2_k3_s2_c128_noskip_act ds_r2_k3_s2_c256_noskip_act " "ds_r6_k3_s2_c512_noskip_act ds_r2_k3_s2_c1024_noskip_act", "1704.04861", act="relu6", head=("pool",)),
    v("mobilenetv1_100", 4_231_976, 0.58, "75.4"))
V2 = family(_row("MobileNetV2", "ds_r1_k3_s1_c16 ir_r2_k3_s2_e6_c24 ir_r3_k3_s2_e6_c32 ir_r4_k3_s2_e6_c64 ir_r3_k3_s1_e6_c96 " "ir_r3_k3_s2_e6_c160 ir_r1_k3_s1_e6_c320", "1801.04381", act="relu6", head=_head(1280, "relu6")),
    v("mobilenetv2_050", 1_968_680, 0.1, "65.9", width=0.5),
    v("mobilenetv2_100", 3_504_872, 0.31, "72.9"),
    v("mobilenetv2_140", 6_108_776, 0.6, "76.5", width=1.4, head=_head(1792, "relu6")))
_V3: dict[str, Any] = {"act": "hardswish", "stem": 16, "squeeze": ("expanded", "round"), "squeeze_act": "relu", "gate": "hardsigmoid"}
V3 = family(_row("MobileNetV3", "", "1905.02244", **_V3),
    v("mobilenetv3_small_100", 2_542_856, 0.06, "67.7", head=_late(1024),
      blocks="ds_r1_k3_s2_e1_c16_se0.25_nre ir_r1_k3_s2_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre ir_r1_k5_s2_e4_c40_se0.25 "
      "ir_r2_k5_s1_e6_c40_se0.25 ir_r2_k5_s1_e3_c48_se0.25 ir_r3_k5_s2_e6_c96_se0.25 cn_r1_k1_s1_c576"),
    v("mobilenetv3_large_100", 5_483_032, 0.23, "75.8", head=_late(1280),
      blocks="ds_r1_k3_s1_e1_c16_nre ir_r1_k3_s2_e4_c24_nre ir_r1_k3_s1_e3_c24_nre ir_r3_k5_s2_e3_c40_se0.25_nre ir_r1_k3_s2_e6_c80 "
      "ir_r1_k3_s1_e2.5_c80 ir_r2_k3_s1_e2.3_c80 ir_r2_k3_s1_e6_c112_se0.25 ir_r3_k5_s2_e6_c160_se0.25 cn_r1_k1_s1_c960"))
MNAS = [
    *family(_row("MnasNet-B1", "ds_r1_k3_s1_c16_noskip ir_r3_k3_s2_e3_c24 ir_r3_k5_s2_e3_c40 ir_r3_k5_s2_e6_c80 ir_r2_k3_s1_e6_c96 " "ir_r4_k5_s2_e6_c192 ir_r1_k3_s1_e6_c320_noskip", "1807.11626"),
        v("mnasnet_100", 4_383_312, 0.33, "74.7")),
    *family(_row("MnasNet-A1", "ds_r1_k3_s1_e1_c16_noskip ir_r2_k3_s2_e6_c24 ir_r3_k5_s2_e3_c40_se0.25 ir_r4_k3_s2_e6_c80 " "ir_r2_k3_s1_e6_c112_se0.25 ir_r3_k5_s2_e6_c160_se0.25 ir_r1_k3_s1_e6_c320", "1807.11626"),
        v("semnasnet_100", 3_887_038, 0.32, "75.5"))]
SPNAS = family(_row("Single-Path NAS", "ds_r1_k3_s1_c16_noskip ir_r3_k3_s2_e3_c24 ir_r1_k5_s2_e6_c40 ir_r3_k3_s1_e3_c40 ir_r1_k5_s2_e6_c80 "
         "ir_r3_k3_s1_e3_c80 ir_r1_k5_s1_e6_c96 ir_r3_k5_s1_e3_c96 ir_r4_k5_s2_e6_c192 ir_r1_k3_s1_e6_c320_noskip", "1904.02877"),
    v("spnasnet_100", 4_421_616, 0.35, "74.1"))
FBNET_C = family(_row("FBNet-C", "ir_r1_k3_s1_e1_c16 ir_r1_k3_s2_e6_c24 ir_r2_k3_s1_e1_c24 ir_r1_k5_s2_e6_c32 ir_r1_k5_s1_e3_c32 ir_r1_k5_s1_e6_c32 "
         "ir_r1_k3_s1_e6_c32 ir_r1_k5_s2_e6_c64 ir_r1_k5_s1_e3_c64 ir_r2_k5_s1_e6_c64 ir_r3_k5_s1_e6_c112 ir_r1_k5_s1_e3_c112 "
         "ir_r4_k5_s2_e6_c184 ir_r1_k3_s1_e6_c352", "1812.03443", stem=16, head=_head(1984, "relu")),
    v("fbnetc_100", 5_572_200, 0.4, "75.1"))
_FB3: dict[str, Any] = {"act": "hardswish", "squeeze": ("input", "round"), "gate": "hardsigmoid", "limit": 0.95, "head": _late(1984, bias=False)}
FBNET_V3 = family(_row("FBNetV3", "", "2006.02049", **_FB3),
    v("fbnetv3_b", 8_598_464, 0.42, "78.2", stem=16,
      blocks="ds_r2_k3_s1_e1_c16 ir_r1_k5_s2_e4_c24 ir_r3_k5_s1_e2_c24 ir_r1_k5_s2_e5_c40_se0.25 ir_r4_k5_s1_e3_c40_se0.25 "
      "ir_r1_k5_s2_e5_c72 ir_r4_k3_s1_e3_c72 ir_r1_k3_s1_e5_c120_se0.25 ir_r5_k5_s1_e3_c120_se0.25 ir_r1_k3_s2_e6_c184_se0.25 "
      "ir_r5_k5_s1_e4_c184_se0.25 ir_r1_k5_s1_e6_c224_se0.25 cn_r1_k1_s1_c1344"),
    v("fbnetv3_d", 10_306_272, 0.52, "78.7", stem=24,
      blocks="ds_r2_k3_s1_e1_c16 ir_r1_k3_s2_e5_c24 ir_r5_k3_s1_e2_c24 ir_r1_k5_s2_e4_c40_se0.25 ir_r4_k3_s1_e3_c40_se0.25 "
      "ir_r1_k3_s2_e5_c72 ir_r4_k3_s1_e3_c72 ir_r1_k3_s1_e5_c128_se0.25 ir_r6_k5_s1_e3_c128_se0.25 ir_r1_k3_s2_e6_c208_se0.25 "
      "ir_r5_k5_s1_e5_c208_se0.25 ir_r1_k5_s1_e6_c240_se0.25 cn_r1_k1_s1_c1440"),
    v("fbnetv3_g", 16_623_888, 1.28, "81.2", stem=32, size=(240, 240),
      blocks="ds_r3_k3_s1_e1_c24 ir_r1_k5_s2_e4_c40 ir_r4_k5_s1_e2_c40 ir_r1_k5_s2_e4_c56_se0.25 ir_r4_k5_s1_e3_c56_se0.25 "
      "ir_r1_k5_s2_e5_c104 ir_r4_k3_s1_e3_c104 ir_r1_k3_s1_e5_c160_se0.25 ir_r8_k5_s1_e3_c160_se0.25 ir_r1_k3_s2_e6_c264_se0.25 "
      "ir_r6_k5_s1_e5_c264_se0.25 ir_r2_k5_s1_e6_c288_se0.25 cn_r1_k1_s1_c1728"))
_B0 = (
    "ds_r1_k3_s1_e1_c16_se0.25 ir_r2_k3_s2_e6_c24_se0.25 ir_r2_k5_s2_e6_c40_se0.25 ir_r3_k3_s2_e6_c80_se0.25 "
    "ir_r3_k5_s1_e6_c112_se0.25{0} ir_r4_k5_s2_e6_c192_se0.25{0} ir_r1_k3_s1_e6_c320_se0.25{0}")
EFFICIENT = family(_row("EfficientNet", _B0.format(""), "1905.11946", act="silu"),
    *(v(f"efficientnet_b{i}", params, macs, top1, size=(px, px), width=width, depth=depth, head=_head(head, "silu"))
      for i, params, macs, top1, px, width, depth, head in (
        (0, 5_288_548, 0.4, "77.7", 224, 1.0, 1.0, 1280),
        (1, 7_794_184, 0.71, "78.8", 240, 1.0, 1.1, 1280),
        (2, 9_109_994, 0.0, "", 260, 1.1, 1.2, 1408),
        (3, 12_233_232, 0.0, "", 300, 1.2, 1.4, 1536),
        (4, 19_341_616, 0.0, "", 380, 1.4, 1.8, 1792),
        (5, 30_389_784, 0.0, "", 456, 1.6, 2.2, 2048),
        (6, 43_040_704, 0.0, "", 528, 1.8, 2.6, 2304),
        (7, 66_347_960, 38.33, "84.9", 600, 2.0, 3.1, 2560))))
_TF = ("bn", {"eps": 1e-3})
CONDCONV = family(_row("CondConv-EfficientNet", _B0.format("_cc4"), "1904.04971", act="silu", norm=_TF, padding="same_upper", head=_head(1280, "silu", _TF)),
    v("tf_efficientnet_cc_b0_4e", 13_314_116, 0.41, "77.3"),
    v("tf_efficientnet_cc_b0_8e", 24_013_284, 0.42, "78.0", experts=2),
    v("tf_efficientnet_cc_b1_8e", 39_715_968, 0.75, "79.3", experts=2, depth=1.1, size=(240, 240)))


def _aff(expand: int, width: int, *widths: int) -> dict[str, Any]:
    """Inverted residuals at strides two and four, then one before a block of two, four and three filters at each further stride."""
    late = (f"ir_r1_k3_s2_e{expand}_c{c} aff_r1_k3_s1_e2_c{c}_n{n}" for c, n in zip(widths, (2, 4, 3), strict=True))
    return {"blocks": f"ir_r1_k3_s1_e{expand}_c32 ir_r3_k3_s2_e{expand}_c{width} " + " ".join(late), "head": _head(min(4 * widths[-1], 960), "silu")}


AFFNET = family(Row("AFFNet", "IRB", {"stem": 16, "act": "silu"}, (256, 256), paper="2307.14008", oracle="count", licence="MIT"),
    v("affnet_et", 1_436_264, 0.4, "73.0", **_aff(2, 48, 64, 104, 144)),
    v("affnet_t", 2_654_232, 0.8, "77.0", **_aff(4, 48, 96, 160, 192)),
    v("affnet", 5_568_696, 1.5, "79.8", **_aff(4, 64, 128, 256, 320)))
ROWS = [*V1, *V2, *V3, *MNAS, *SPNAS, *FBNET_C, *FBNET_V3, *EFFICIENT, *CONDCONV, *AFFNET]
