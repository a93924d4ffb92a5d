"""Networks over sequences."""
# fmt: off

from ..registry import Row, family
from ..registry import variant as v

MULTIRES = family(Row("MultiresNet", "SeqNet", {"width": 256, "depth": 10, "length": 1024}, (1024,), paper="2305.01638", oracle="count", licence="MIT", classes=10),
    v("multiresnet_scifar", 1_365_514, 0.0, "93.2 (sequential CIFAR-10)"))
ROWS = [*MULTIRES]
