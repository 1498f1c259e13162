import numpy as np

import sightline as sl


def stripes(*, seed: int = 0) -> sl.Dataset:
    """Lying and standing stripes, with noise."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> sl.Split:
        labels = np.arange(count) % 2
        images = rng.integers(0, 100, (count, 16, 16, 3))
        images[labels == 0, ::4] += 120
        images[labels == 1, :, ::4] += 120
        return sl.Split(images.astype(np.uint8), labels)

    return sl.Dataset("stripes", ("lying", "standing"), train=split(200), test=split(60))
