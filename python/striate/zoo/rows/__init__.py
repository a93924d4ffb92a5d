"""Rows of data, one module for each skeleton."""

# Variants that a reader of the papers may look for, and why there is no row.
ABSENT = {
    "YOLOv5-SPD": "a detector whose other parts are not here; its layer is `striate.nn.SpaceToDepth`",
    "SSDLite-MobileNetV2": "no reference with a published count; the V3 row shows its head",
    "IS-Net's encoder of ground truth": "used in training only",
    "RFDN of the paper, about 550k": "the public code, with which the rows agree, is the smaller network of a challenge",
    "MultiresNet for ListOps": "reads tokens to give one class; rows read tokens only to tell the next",
}
