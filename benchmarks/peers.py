"""Peers that need a word before they can be imported."""

import os
from types import ModuleType


def keras_image() -> ModuleType:
    "The module of Keras's ImageDataGenerator, which Keras 3 keeps among what is legacy; on the backend PyTorch."
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from keras.src.legacy.preprocessing import image

    return image


def torchvision_v2() -> ModuleType:
    """torchvision.transforms.v2. A torchvision built for CUDA beside a PyTorch for the CPU does not find its compiled
    operators, and stops where it describes two of them; no transform uses these."""
    import torch

    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    try:
        from torchvision.transforms import v2
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", signature)
        from torchvision.transforms import v2
    return v2
