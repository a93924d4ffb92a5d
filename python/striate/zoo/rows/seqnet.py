"""Networks over sequences."""
# fmt: off

from ..registry import Row, family
from ..registry import variant as v

MULTIRES = family(Row("MultiresNet", "SeqNet", {"width": 256, "depth": 10, "length": 1024}, (1024,), paper="2305.01638", oracle="count", licence="MIT", classes=10),
    v("multiresnet_scifar", 1_365_514, 0.0, "93.2 (sequential CIFAR-10)"))
# The stack of its Long Range Arena runs on flattened grey images; the paper gives no parameter count.
SGCONV = family(Row("SGConv", "SeqNet", {"width": 512, "depth": 6, "length": 1024, "mixer": "structured"}, (1024,), paper="2210.09298", oracle="paper", licence="none in the reference repository", classes=10, channels=1, needs="nn.SGConv1d"),
    v("sgconv_lra_image", 5_133_322, 0.0, ""))
ROWS = [*MULTIRES, *SGCONV]
