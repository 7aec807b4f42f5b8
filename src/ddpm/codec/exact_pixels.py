"""The exact last stage: pixels coded under the discretised p(x_0 | x_1), by a range coder.

The model of a pixel is a Gaussian around the x_0 the network predicts, as in Eq. 13. Its mean is
rounded to eighths of a grey level and its scale to a log grid, and `constriction` turns both into
integer frequencies, so that encoder and decoder agree to the last bit.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FRACTIONS = 8  # of a grey level that means are rounded to, and of an octave that scales are
SCALE_BITS = 4
SCALES = 2.0 ** (np.arange(-8, 8) / 8)  # of which the encoder names the best, in SCALE_BITS
SMALLEST = 0.05  # scale in grey levels; below it everything sits in one level anyway


class PixelModel:
    """A distribution over grey levels for each value.

    Args:
        xstart: predicted x_0, in [-1, 1].
        mse: its expected squared error, of the same shape.
        grey_levels: values a pixel can take.
        scale: index into SCALES, by which the expected error is multiplied.
    """

    def __init__(self, xstart: Array, mse: Array, grey_levels: int, scale: int) -> None:
        half = (grey_levels - 1) / 2
        self.means = np.round((xstart + 1) * half * FRACTIONS) / FRACTIONS
        scales = np.maximum(np.sqrt(mse) * half * SCALES[scale], SMALLEST)
        self.scales = 2.0 ** (np.round(np.log2(scales) * FRACTIONS) / FRACTIONS)
        self.family = constriction.stream.model.QuantizedGaussian(0, grey_levels - 1)

    def encode(self, pixels: NDArray[np.int32]) -> bytes:
        """The pixels' code, as short as it still decodes when followed by zeros."""
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(pixels, self.family, self.means, self.scales)
        code = coder.get_compressed().astype(">u4").tobytes()
        shortest = len(code)
        while shortest and np.array_equal(self.decode(code[: shortest - 1]), pixels):
            shortest -= 1
        return code[:shortest]

    def decode(self, code: bytes, fill: bytes = b"\0") -> NDArray[np.int32]:
        """The pixels of a code, of which what is missing is taken to be `fill`.

        Stops early at what no encoder wrote, so that fewer pixels come back than there are.
        """
        padded = code + fill * (8 + -len(code) % 4)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        try:
            return decoder.decode(self.family, self.means, self.scales)
        except AssertionError:
            return self._decode_singly(constriction.stream.queue.RangeDecoder(words))

    def _decode_singly(self, decoder: Any) -> NDArray[np.int32]:
        pixels = []
        for mean, scale in zip(self.means, self.scales, strict=True):
            try:
                pixels.append(decoder.decode(self.family, mean[None], scale[None])[0])
            except AssertionError:
                break
        return np.array(pixels, dtype=np.int32)


def best_scale(grey_levels: int, pixels: NDArray[np.int32], xstart: Array, mse: Array) -> int:
    """The index into SCALES under which the pixels' code is shortest."""
    sizes = []
    for scale in range(len(SCALES)):
        model = PixelModel(xstart, mse, grey_levels, scale)
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(pixels, model.family, model.means, model.scales)
        sizes.append(coder.num_bits())
    return int(np.argmin(sizes))
