"""Four-stage backbones."""
# fmt: off

from typing import Any

from ..registry import Row, family
from ..registry import variant as v

T, S, B = (96, 192, 384, 768), (96, 192, 384, 768), (128, 256, 512, 1024)
SHORT, LONG = (3, 3, 9, 3), (3, 3, 27, 3)
LS = 1e-6
CONVNEXT = family(Row("ConvNeXt", "MetaNet", {"mixer": "depthwise", "layer_scale": LS}, paper="2201.03545", oracle="timm:", licence="Apache-2.0"),
    v("convnext_atto", 3_695_520, 0.55, "75.7", depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)),
    v("convnext_tiny", 28_589_128, 4.47, "82.1", depths=SHORT, dims=T),
    v("convnext_small", 50_223_688, 8.71, "83.1", depths=LONG, dims=S),
    v("convnext_base", 88_591_464, 15.38, "83.8", depths=LONG, dims=B),
    v("convnext_large", 197_767_336, 34.4, "84.3", depths=LONG, dims=(192, 384, 768, 1536)),
    v("convnext_xlarge", 350_196_968, 60.98, "87.0 (22k)", depths=LONG, dims=(256, 512, 1024, 2048)))
CONVNEXT_V2 = family(Row("ConvNeXt V2", "MetaNet", {"mixer": "depthwise", "mlp": ("mlp", {"grn": "bias first"})}, paper="2301.00808", oracle="timm:", licence="Apache-2.0"),
    v("convnextv2_atto", 3_708_400, 0.55, "76.6", depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)),
    v("convnextv2_tiny", 28_635_496, 4.47, "82.9", depths=SHORT, dims=T),
    v("convnextv2_base", 88_717_800, 15.38, "84.9", depths=LONG, dims=B),
    v("convnextv2_huge", 660_289_640, 115.0, "86.3", depths=LONG, dims=(352, 704, 1408, 2816)))
_INCEPTION = {
    "mixer": "inception",
    "norm": "bn",
    "layer_scale": LS,
    "mlp": ["mlp", "mlp", "mlp", ("mlp", {"ratio": 3})],
    "stem": ("conv_norm", {"kernel": 4, "stride": 4, "norm": "bn"}),
    "down": ("norm_conv", {"kernel": 2, "stride": 2, "norm": "bn"}),
    "head": ("pool", ("linear", {"ratio": 3}), ("act", {"kind": "gelu"}), "layer_norm")}
INCEPTION_NEXT = family(Row("InceptionNeXt", "MetaNet", _INCEPTION, paper="2303.16900", oracle="timm:", licence="Apache-2.0"),
    v("inception_next_atto", 4_156_520, 0.5, "75.3", depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), mixer=("inception", {"band_kernel_size": 9, "branch_ratio": 0.25})),
    v("inception_next_tiny", 28_055_680, 4.19, "82.5", depths=SHORT, dims=T),
    v("inception_next_small", 49_374_016, 8.36, "83.6", depths=LONG, dims=S),
    v("inception_next_base", 86_672_136, 14.85, "84.1", depths=LONG, dims=B))
_LN5 = ("ln", {"eps": 1e-5})
_FOCAL = {"block": "two", "norm": _LN5, "mixer": "focal", "stem": ("conv_norm", {"kernel": 4, "stride": 4, "norm": _LN5}), "down": ("conv_norm", {"kernel": 2, "stride": 2, "norm": _LN5}), "head": (("norm", {"kind": _LN5}), "pool")}
_FOCAL_LARGE: dict[str, Any] = {"post": True, "layer_scale": 1e-4, "stem": ("conv_norm", {"kernel": 7, "stride": 4, "padding": 2, "norm": _LN5}), "down": ("conv_norm", {"kernel": 3, "stride": 2, "norm": _LN5})}


def _focal(levels: int, window: int = 3, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("focal", {"levels": levels, "window": window, **more})


FOCALNET = family(Row("FocalNet", "MetaNet", _FOCAL, paper="2203.11926", oracle="timm:", licence="MIT"),
    v("focalnet_tiny_srf", 28_427_116, 4.42, "82.1", depths=(2, 2, 6, 2), dims=T),
    v("focalnet_tiny_lrf", 28_647_928, 4.49, "82.2", depths=(2, 2, 6, 2), dims=T, mixer=_focal(3)),
    v("focalnet_small_srf", 49_891_216, 8.62, "83.4", depths=(2, 2, 18, 2), dims=S),
    v("focalnet_small_lrf", 50_342_440, 8.74, "83.5", depths=(2, 2, 18, 2), dims=S, mixer=_focal(3)),
    v("focalnet_base_srf", 88_148_144, 15.28, "83.8", depths=(2, 2, 18, 2), dims=B),
    v("focalnet_base_lrf", 88_749_768, 15.43, "83.8", depths=(2, 2, 18, 2), dims=B, mixer=_focal(3)),
    v("focalnet_large_fl3", 207_100_744, depths=(2, 2, 18, 2), dims=(192, 384, 768, 1536), mixer=_focal(3, 5), **_FOCAL_LARGE),
    v("focalnet_large_fl4", 207_281_248, depths=(2, 2, 18, 2), dims=(192, 384, 768, 1536), mixer=_focal(4), **_FOCAL_LARGE),
    v("focalnet_xlarge_fl3", 366_082_120, depths=(2, 2, 18, 2), dims=(256, 512, 1024, 2048), mixer=_focal(3, 5), **_FOCAL_LARGE),
    v("focalnet_huge_fl3", 686_564_424, depths=(2, 2, 18, 2), dims=(352, 704, 1408, 2816), mixer=_focal(3, post=_LN5), **_FOCAL_LARGE))
_NOBIAS = ("ln", {"bias": False})
_POOLFORMER = {"block": "two", "norm": ("gn1", {"eps": 1e-5}), "mixer": "pool", "layer_scale": 1e-5, "stem": ("conv_norm", {"kernel": 7, "stride": 4, "padding": 2}), "down": ("conv_norm", {"kernel": 3, "stride": 2})}
_META = {
    "block": "two",
    "norm": _NOBIAS,
    "mlp": ("mlp", {"act": "star_relu", "bias": False}),
    "residual_scale": [None, None, 1.0, 1.0],
    "stem": ("conv_norm", {"kernel": 7, "stride": 4, "padding": 2, "norm": _NOBIAS}),
    "down": ("norm_conv", {"kernel": 3, "stride": 2, "norm": _NOBIAS})}
_META_HEAD = ("pool", "layer_norm", ("linear", {"ratio": 4}), ("act", {"kind": "squared_relu"}), "layer_norm")
_GN_NOBIAS = ("gn1", {"bias": False})
_PLAIN_META = {**_META, "norm": _GN_NOBIAS}
_WIDE, _WIDER = (64, 128, 320, 512), (96, 192, 384, 768)
_SIZES = {"s12": ((2, 2, 6, 2), _WIDE), "s24": ((4, 4, 12, 4), _WIDE), "s36": ((6, 6, 18, 6), _WIDE), "m36": ((6, 6, 18, 6), _WIDER), "m48": ((8, 8, 24, 8), _WIDER)}
_CONV = {"s18": ((3, 3, 9, 3), _WIDE), "s36": ((3, 12, 18, 3), _WIDE), "m36": ((3, 12, 18, 3), (96, 192, 384, 576)), "b36": ((3, 12, 18, 3), (128, 256, 512, 768))}


def _metaformers(prefix: str, *rows: Any) -> list[dict[str, Any]]:
    sizes = _CONV if prefix in ("convformer", "caformer") else _SIZES
    return [v(f"{prefix}_{size}", *published, depths=sizes[size][0], dims=sizes[size][1]) for size, *published in rows]


POOLFORMER = [
    *family(Row("PoolFormer", "MetaNet", _POOLFORMER, paper="2111.11418", oracle="timm:", licence="Apache-2.0"),
        *_metaformers("poolformer", ("s12", 11_915_176, 1.82, "77.2"), ("s24", 21_388_968, 3.41, "80.3"), ("s36", 30_862_760, 5.0, "81.4"), ("m36", 56_172_520, 8.8, "82.1"), ("m48", 73_473_448, 11.59, "82.5"))),
    *family(Row("PoolFormer V2", "MetaNet", {**_PLAIN_META, "mixer": "pool"}, paper="2210.13452", oracle="timm:", licence="Apache-2.0"),
        *_metaformers("poolformerv2", ("s12", 11_891_712, 1.83, "78.0")))]
_SEP, _ATT = "separable", "attention"
CONVFORMER = [
    *family(Row("ConvFormer", "MetaNet", {**_META, "mixer": _SEP, "head": _META_HEAD}, paper="2210.13452", oracle="timm:", licence="Apache-2.0"),
        *_metaformers("convformer", ("s18", 26_774_448, 3.96, "83.0"), ("s36", 40_012_152, 7.67, "84.1"), ("m36", 57_051_640, 12.89, "84.5"), ("b36", 99_882_616, 22.69, "84.8"))),
    *family(Row("CAFormer", "MetaNet", {**_META, "mixer": [_SEP, _SEP, _ATT, _ATT], "head": _META_HEAD}, paper="2210.13452", oracle="timm:", licence="Apache-2.0"),
        *_metaformers("caformer", ("s18", 26_341_656, 4.13, "83.7"), ("s36", 39_297_102, 8.0, "84.5"), ("m36", 56_204_878, 13.29, "85.2"), ("b36", 98_753_614, 23.22, "85.5")))]
_FASTER = {"norm": "none", "mixer": "partial", "stem": ("conv_norm", {"kernel": 4, "stride": 4, "norm": "bn", "bias": False}), "down": ("conv_norm", {"kernel": 2, "stride": 2, "norm": "bn", "bias": False})}


def _faster(act: str, base: int) -> dict[str, Any]:
    """FasterNet's smallest two use GELU, the others ReLU."""
    return {"dims": tuple(base << i for i in range(4)), "mlp": ("mlp", {"ratio": 2, "act": act, "norm": "bn", "bias": False}), "head": (("pool", {"keepdim": True}), ("conv", {"width": 1280, "norm": "none", "act": act, "bias": False}), "flatten")}
FASTERNET = family(Row("FasterNet", "MetaNet", _FASTER, paper="2303.03667", oracle="timm:", licence="none in the reference repository"),
    v("fasternet_t0", 3_905_500, 0.34, "71.7", depths=(1, 2, 8, 2), **_faster("gelu", 40)),
    v("fasternet_t1", 7_595_368, 0.85, "75.9", depths=(1, 2, 8, 2), **_faster("gelu", 64)),
    v("fasternet_t2", 14_982_888, 1.91, "78.7", depths=(1, 2, 8, 2), **_faster("relu", 96)),
    v("fasternet_s", 31_181_032, 4.56, "81.3", depths=(1, 2, 13, 2), **_faster("relu", 128)),
    v("fasternet_m", 53_521_464, 8.74, "82.8", depths=(3, 4, 18, 3), **_faster("relu", 144)),
    v("fasternet_l", 93_465_192, 15.52, "83.5", depths=(3, 4, 18, 3), **_faster("relu", 192)))


def _recursive(*sizes: int) -> list[Any]:
    """Orders two to five by stage."""
    return [("recursive_gated", {"order": n + 2, **({"size": size} if size else {})}) for n, size in enumerate(sizes)]


_HORNET = {"block": "two", "layer_scale": LS, "mixer": _recursive(0, 0, 0, 0)}
_GF = _recursive(0, 0, 14, 7)
_HORNET_DEPTHS = (2, 3, 18, 2)
HORNET = family(Row("HorNet", "MetaNet", _HORNET, paper="2207.14284", oracle="github:raoyongming/HorNet", licence="MIT"),
    v("hornet_tiny_7x7", 22_409_512, 4.0, "82.8", depths=_HORNET_DEPTHS, dims=(64, 128, 256, 512)),
    v("hornet_tiny_gf", 22_991_848, 3.9, "83.0", depths=_HORNET_DEPTHS, dims=(64, 128, 256, 512), mixer=_GF),
    v("hornet_small_7x7", 49_528_264, 8.8, "83.8", depths=_HORNET_DEPTHS, dims=(96, 192, 384, 768)),
    v("hornet_small_gf", 50_401_768, 0.0, "84.0", depths=_HORNET_DEPTHS, dims=(96, 192, 384, 768), mixer=_GF),
    v("hornet_base_7x7", 87_256_680, 15.6, "84.2", depths=_HORNET_DEPTHS, dims=B),
    v("hornet_base_gf", 88_421_352, 0.0, "84.3", depths=_HORNET_DEPTHS, dims=B, mixer=_GF),
    v("hornet_large_7x7", 194_542_504, 0.0, "", depths=_HORNET_DEPTHS, dims=(192, 384, 768, 1536)),
    v("hornet_large_gf", 196_289_512, 34.7, "", depths=_HORNET_DEPTHS, dims=(192, 384, 768, 1536), mixer=_GF))
IDENTITY = [
    *family(Row("IdentityFormer", "MetaNet", {**_PLAIN_META, "mixer": "identity"}, paper="2210.13452", oracle="timm:MetaFormer", licence="Apache-2.0"),
        *_metaformers("identityformer", ("s12", 11_891_712, 1.8, "74.6"), ("s24", 21_341_464, 0.0, "78.2"), ("s36", 30_791_216, 0.0, "79.3"), ("m36", 56_077_168, 0.0, "80.0"), ("m48", 73_346_056, 11.5, "80.4"))),
    *family(Row("RandFormer", "MetaNet", {**_PLAIN_META, "mixer": ["identity", "identity", ("random", {"positions": 196}), ("random", {"positions": 49})]}, paper="2210.13452", oracle="github:sail-sg/metaformer", licence="Apache-2.0", fixed=True),
        *_metaformers("randformer", ("s12", 12_127_010, 1.9, "76.6"), ("s24", 21_812_060, 0.0, ""), ("s36", 31_497_110, 0.0, ""), ("m36", 56_783_062, 0.0, ""), ("m48", 74_287_248, 0.0, "81.4")))]
_L, _S3 = ("squeezed", {"kernel": 13}), ("squeezed", {"kernel": 3})
_UNIREP = {"norm": "none", "mlp": ("mlp", {"grn": "unbiased"}), "stem": "halving", "down": ("conv_norm", {"kernel": 3, "stride": 2, "norm": "ln"}), "mixer": [_S3, _L, [_L, _S3], _L]}
_SMALL_UNIREP = {"mixer": [_S3, _L, _L, _L]}
_LARGE_UNIREP = {"mixer": [_S3, _L, [_L, _S3, _S3], _L]}
# Merged form: branches, norms, scales and the bias of the response norm are folded into their neighbours; the published sizes count this form.
UNIREP = family(Row("UniRepLKNet", "MetaNet", _UNIREP, paper="2311.15599", oracle="github:AILab-CVC/UniRepLKNet", licence="Apache-2.0"),
    v("unireplknet_a", 4_437_300, 0.6, "77.0", depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), **_SMALL_UNIREP),
    v("unireplknet_f", 6_235_216, 0.0, "78.6", depths=(2, 2, 6, 2), dims=(48, 96, 192, 384), **_SMALL_UNIREP),
    v("unireplknet_p", 10_741_704, 0.0, "80.2", depths=(2, 2, 6, 2), dims=(64, 128, 256, 512), **_SMALL_UNIREP),
    v("unireplknet_n", 18_318_560, 0.0, "81.6", depths=(2, 2, 8, 2), dims=(80, 160, 320, 640), **_SMALL_UNIREP),
    v("unireplknet_t", 31_037_980, 4.9, "83.2", depths=(3, 3, 18, 3), dims=(80, 160, 320, 640)),
    v("unireplknet_s", 55_645_984, 9.1, "83.9", depths=LONG, dims=T, **_LARGE_UNIREP),
    v("unireplknet_b", 98_008_456, 47.2, "87.4 (22k, 384 px)", depths=LONG, dims=B, **_LARGE_UNIREP),
    v("unireplknet_l", 218_454_616, 0.0, "", depths=LONG, dims=(192, 384, 768, 1536), **_LARGE_UNIREP),
    v("unireplknet_xl", 386_529_064, 187.0, "88.0 (22k, 384 px)", depths=LONG, dims=(256, 512, 1024, 2048), **_LARGE_UNIREP))
# Before the sparsity masks, which leave the published 30M, 55M and 95M parameters.
_SLAK = {"mixer": [("strips", {"long": k}) for k in (51, 49, 47, 13)], "layer_scale": LS}
SLAK = family(Row("SLaK", "MetaNet", _SLAK, paper="2207.03620", oracle="github:VITA-Group/SLaK", licence="MIT"),
    v("slak_tiny", 50_703_838, 5.0, "82.5", depths=SHORT, dims=(124, 249, 499, 998)),
    v("slak_small", 91_131_820, 9.8, "83.8", depths=LONG, dims=(124, 249, 499, 998)),
    v("slak_base", 157_950_792, 17.1, "84.0", depths=LONG, dims=(166, 332, 665, 1331)))
CONVNEXT_DCLS = family(Row("ConvNeXt-DCLS", "MetaNet", {"mixer": "dcls", "layer_scale": LS, "shared": "P"}, paper="2112.03740", oracle="github:K-H-Ismail/ConvNeXt-dcls", licence="MIT"),
    v("convnext_dcls_tiny", 28_587_688, 5.0, "82.5", depths=SHORT, dims=T),
    v("convnext_dcls_small", 50_217_064, 9.5, "83.7", depths=LONG, dims=S, mixer=("dcls", {"count": 40})),
    v("convnext_dcls_base", 88_582_632, 16.5, "84.1", depths=LONG, dims=B, mixer=("dcls", {"count": 40})))
_BIASFREE: dict[str, Any] = {"norm": "bn", "bias": False}
# Before the sparsity masks. The kernels are those that the published network was trained with.
_SHIFT = {"norm": "none", "mixer": [("shiftwise", {"kernel": k}) for k in (51, 49, 47, 13)], "mlp": ("mlp", {"grn": "weight first", "last": "bn"}), "layer_scale": LS, "stem": "halving", "down": ("conv_norm", {"kernel": 3, "stride": 2, "norm": "ln"})}
SHIFTWISE = family(Row("ShiftWise", "MetaNet", _SHIFT, paper="2401.12736", oracle="github:lidc54/shift-wiseConv", licence="MIT"),
    v("shiftwise_tiny", 31_790_260, 0.0, "83.4", depths=(3, 3, 18, 3), dims=(80, 160, 320, 640)),
    v("shiftwise_small", 57_312_892, depths=LONG, dims=S),
    v("shiftwise_base", 100_250_380, depths=LONG, dims=B),
    v("shiftwise_large", 221_808_628, depths=LONG, dims=(192, 384, 768, 1536)))
_LS = {"block": "late", "stride": 8, "down": "separable", "head": ("pool", "batch_norm"), "mixer": [["small", "large_small"]] * 3 + [["small", ("large_small", {"attention": True})]], "mlp": ("mlp", {"ratio": 2, "act": "relu", "last": "bn", **_BIASFREE})}


def _ls(*dims: int) -> dict[str, Any]:
    return {"dims": dims, "stem": ("halving", {"between": (dims[0] // 4, dims[0] // 2), "act": "relu", **_BIASFREE})}


LSNET = family(Row("LSNet", "MetaNet", _LS, paper="2503.23135", oracle="github:THU-MIG/lsnet", licence="none in the reference repository"),
    v("lsnet_t", 11_409_832, 0.3, "74.9", depths=(0, 2, 8, 10), **_ls(64, 128, 256, 384)),
    v("lsnet_s", 16_146_304, 0.5, "77.8", depths=(1, 2, 8, 10), **_ls(96, 192, 320, 448)),
    v("lsnet_b", 23_313_608, 1.3, "80.3", depths=(4, 6, 8, 10), **_ls(128, 256, 384, 512)))
_SPA = {"block": "two", "norm": ("gn1", {"eps": 1e-5}), "mixer": [("spectral_context", {"radius": r}) for r in (2, 2, 1, 1)], "residual_scale": [None, None, 1.0, 1.0], "stem": ("conv_norm", {"kernel": 7, "stride": 4, "padding": 2}), "down": ("conv_norm", {"kernel": 3, "stride": 2}), "head": (("norm", {"kind": ("gn1", {"eps": 1e-5})}), "pool")}
# The reference registers its constant masks as parameters: 54,684 to 109,368 more.
SPANET = family(Row("SPANet", "MetaNet", _SPA, paper="2308.11568", oracle="github:DoranLyong/SPANet-official", licence="none in the reference repository"),
    v("spanet_s", 28_605_096, 4.6, "83.1", depths=(4, 4, 12, 4), dims=_WIDE),
    v("spanet_m", 41_686_952, 6.8, "83.5", depths=(6, 6, 18, 6), dims=_WIDE),
    v("spanet_mx", 54_768_808, 9.0, "83.8", depths=(8, 8, 24, 8), dims=_WIDE),
    v("spanet_b", 75_856_168, 12.0, "84.0", depths=(6, 6, 18, 6), dims=_WIDER),
    v("spanet_bx", 99_718_312, 15.8, "84.4", depths=(8, 8, 24, 8), dims=_WIDER))


def _ff(base: int, kernel: int = 7) -> dict[str, Any]:
    return {"dims": tuple(base << i for i in range(4)), "mlp": ("filtered", {"kernel": kernel})}


# As trained: the published sizes have each pair of filters and all norms merged.
_FF = {"block": "two", "norm": "none", "layer_scale": None, "mixer": [("query_key", {"kernel": k}) for k in (3, 3, 7, 7)], "stem": ("halving", {"between": (64,), **_BIASFREE}), "down": "rep", "head": (("norm", {"kind": "bn"}), "pool")}
FFNET = family(Row("FFNet (MetaMixer)", "MetaNet", _FF, (256, 256), paper="2406.02021", oracle="github:ysj9909/FFNet", licence="Apache-2.0"),
    v("metamixer_ffnet_1", 13_775_656, 2.9, "81.3", depths=(2, 2, 8, 2), **_ff(80, 3)),
    v("metamixer_ffnet_2", 27_208_408, 6.0, "82.9", depths=(3, 3, 15, 3), **_ff(88)),
    v("metamixer_ffnet_3", 48_817_896, 10.1, "83.9", depths=(4, 4, 22, 5), layer_scale=LS, **_ff(96)),
    v("metamixer_ffnet_4", 79_868_968, 43.1, "85.3 (384 px)", size=(384, 384), depths=(4, 4, 27, 3), layer_scale=LS, **_ff(128)))
_BN6 = {"norm": ("bn", {"eps": 1e-6}), "bias": False}
_SPARTAN = {"block": "two", "norm": "gn1", "layer_scale": 1e-5, "mixer": ["reinforced", "reinforced", *[("reinforced", {"groups": "depthwise"})] * 2],
    "mlp": ["wave", "wave", ("wave", {"ratio": 2, "groups": 128}), ("wave", {"ratio": 2, "groups": 256})], "stem": ("halving", {"last": "gelu", **_BN6}), "down": ("conv_norm", {"kernel": 2, "stride": 2, "act": "silu", **_BN6}), "head": ("pool",)}
SPARTAN = family(Row("SpaRTAN", "MetaNet", _SPARTAN, paper="2507.10999", oracle="github:henry-pay/SpaRTAN", licence="Apache-2.0"),
    v("spartan_t", 3_820_296, 1.0, "77.7", depths=(3, 3, 12, 2), dims=(32, 64, 128, 256)))
ROWS = [*CONVNEXT, *CONVNEXT_V2, *INCEPTION_NEXT, *FOCALNET, *POOLFORMER, *CONVFORMER, *FASTERNET, *HORNET, *IDENTITY, *UNIREP, *SLAK, *CONVNEXT_DCLS, *SHIFTWISE, *LSNET, *SPANET, *FFNET, *SPARTAN]
