"""High-resolution networks."""
# fmt: off

from ..registry import Row, family
from ..registry import variant as v

ROWS = family(Row("HRNet", "MultiRes", {}, paper="1908.07919", oracle="timm:", licence="MIT"),
    v("hrnet_w18_small", 13_187_464, 1.61, "73.9", width=16, first=(1, 32), modules=(1, 1, 1), depth=2),
    v("hrnet_w18_small_v2", 15_597_464, 2.62, "75.1", width=18, first=(2, 64), modules=(1, 3, 2), depth=2),
    v("hrnet_w18", 21_299_004, 4.32, "76.8", width=18),
    v("hrnet_w30", 37_712_220, 0.0, "", width=30),
    v("hrnet_w32", 41_232_680, 8.97, "78.5", width=32),
    v("hrnet_w40", 57_557_160, 0.0, "", width=40),
    v("hrnet_w44", 67_064_984, 0.0, "", width=44),
    v("hrnet_w48", 77_469_864, 17.34, "79.3", width=48),
    v("hrnet_w64", 128_059_944, 0.0, "", width=64))
