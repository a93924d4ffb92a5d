"""Networks that belong here and are not built yet, each with the reason."""
# fmt: off

from ..registry import Row

_UNSEEN = "no reference implementation could be compared with"


def _row(name: str, family: str, skeleton: str, paper: str, absent: str) -> Row:
    return Row(family, skeleton, {}, name=name, paper=paper, absent=absent)


ROWS = [
    _row("shiftwise_tiny", "ShiftWise", "MetaNet", "2401.12736", f"its layer is striate.nn.ShiftwiseConv2d; for the rest {_UNSEEN}"),
    _row("hyena_small", "Hyena", "SeqNet", "2302.10866", "a language model of striate.nn.HyenaOperator; the skeleton reads no tokens yet"),
    _row("laughing_hyena", "LaughingHyena", "SeqNet", "2310.18780", "a language model of striate.nn.ModalConv1d; the skeleton reads no tokens yet"),
    _row("lsnet_t", "LSNet", "MetaNet", "2503.23135", f"its macro design is known, but {_UNSEEN}"),
    _row("spanet_s", "SPANet", "MetaNet", "2308.11568", _UNSEEN),
    _row("affnet", "AFFNet", "MetaNet", "2307.14008", f"its filter is striate.nn.AdaptiveFrequencyFilter2d; for the rest {_UNSEEN}"),
    _row("metamixer_ffnet_1", "FFNet (MetaMixer)", "MetaNet", "2406.02021", _UNSEEN),
    _row("spartan", "SpaRTAN", "MetaNet", "SpaRTAN (2025)", _UNSEEN),
    _row("mirnet", "MIRNet", "MultiRes", "2003.06792", "the reference is for academic use only and was not read"),
    _row("idf", "IDF", "Plain", "IDF (2025)", f"its filter is striate.nn.dynamic.spatially_varying_conv2d; for the rest {_UNSEEN}"),
    _row("ffnet_seg_86_aaa", "FFNet (segmentation)", "Dense", "2206.08236", _UNSEEN)]
