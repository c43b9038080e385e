"""The array libraries that functions run on, and the skip where there is no GPU."""

import array_api_strict
import numpy as np
import pytest
import torch

BACKENDS = {
    "numpy": np.asarray,
    "torch": torch.asarray,
    "strict": array_api_strict.asarray,
    "cuda": lambda x: torch.asarray(x, device="cuda"),
}
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
each_backend = pytest.mark.parametrize("backend", [pytest.param(b, marks=[no_gpu] * (b == "cuda")) for b in BACKENDS])
