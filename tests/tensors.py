"""A stand-in for tensors of frameworks."""

from __future__ import annotations

import numpy as np


class Tensor:
    """What a framework's tensor is to numpy: it must be detached and fetched first."""

    def __init__(self, array, grad=True, device="cuda", dtype="torch.float32"):
        self.array, self.grad, self.device, self.dtype = array, grad, device, dtype

    def detach(self):
        return Tensor(self.array, False, self.device, self.dtype)

    def cpu(self):
        assert not self.grad
        return Tensor(self.array, False, "cpu", self.dtype)

    def float(self):
        return Tensor(self.array, self.grad, self.device)

    def __array__(self, dtype=None, copy=None):
        if self.grad or self.device != "cpu":
            raise TypeError("can't convert a tensor that requires grad, or of a device")
        if "bfloat16" in self.dtype:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return np.array(self.array, dtype=dtype)
