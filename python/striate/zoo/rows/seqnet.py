"""Networks over sequences."""
# fmt: off

from ..registry import Row, family
from ..registry import variant as v

MULTIRES = family(Row("MultiresNet", "SeqNet", {"norm": ("ln", {"eps": 1e-5})}, paper="2305.01638", oracle="github:thjashin/multires-conv", licence="MIT"),
    v("multiresnet_scifar", 1_365_514, 0.0, "93.2 (sequential CIFAR-10)", size=(1024,), classes=10, width=256, depth=10, length=1024),
    v("multiresnet_ptbxl", 214_277, size=(1000,), classes=5, channels=12, width=128, depth=6, length=1000))
# The stack of its Long Range Arena runs on flattened grey images; the paper gives no parameter count.
SGCONV = family(Row("SGConv", "SeqNet", {"width": 512, "depth": 6, "length": 1024, "mixer": "structured"}, (1024,), paper="2210.09298", oracle="paper", licence="none in the reference repository", classes=10, channels=1),
    v("sgconv_lra_image", 5_133_322, 0.0, ""))
# A vocabulary of 50,257 in rows of eight. The second is the first with each filter as 8 complex oscillations, its distilled form.
_LM = {"width": 864, "depth": 18, "length": 2048, "block": "two", "ratio": 2, "norm": ("ln", {"eps": 1e-5})}
HYENA = family(Row("Hyena", "SeqNet", _LM, (2048,), paper="2302.10866", oracle="count", licence="Apache-2.0", classes=50264, channels=0),
    v("hyena_small", 153_700_416, mixer=("hyena", {"emb_dim": 33, "w": 14})),
    v("laughing_hyena_small", 151_796_160, mixer=("hyena", {"modes": 8}), family="LaughingHyena", paper="2310.18780", oracle="layers"))
ROWS = [*MULTIRES, *SGCONV, *HYENA]
