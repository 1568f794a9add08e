"""scikit-learn's bundled digits, split once, and as many seeded variations of them as are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hivefold.datasets.npy import header_bytes

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]

SIDE: Final = 8
PIXELS: Final = SIDE * SIDE
BLOCK_ROWS: Final = 16_384
_SPLIT_SEED: Final = 7
_HELD_OUT: Final = 0.25


@dataclass(frozen=True)
class Digits:
    """Images of 64 pixels from 0 to 1 with what they show; the model never sees the held-out ones."""

    train_images: Images
    train_labels: Labels
    held_out_images: Images
    held_out_labels: Labels


def load() -> Digits:
    """The digits, always split in the same way, each digit in both parts in the same share."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        (images / 16).astype(np.float32),
        labels.astype(np.int64),
        test_size=_HELD_OUT,
        stratify=labels,
        random_state=_SPLIT_SEED,
    )
    return Digits(train_images=parts[0], train_labels=parts[2], held_out_images=parts[1], held_out_labels=parts[3])


def augmented(images: Images, labels: Labels, count: int, seed: int) -> Iterator[tuple[Images, Labels]]:
    """`count` variations in blocks: moved by up to a pixel, brighter or darker, with noise. Seeded."""
    random = np.random.default_rng(seed)
    padded = np.pad(images.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))
    for start in range(0, count, BLOCK_ROWS):
        rows = min(BLOCK_ROWS, count - start)
        chosen = random.integers(0, len(images), rows)
        # Most digits stay where they are: a corner of an 8 x 8 image is a quarter of a stroke.
        down, right = random.choice(3, (2, rows), p=(0.2, 0.6, 0.2))
        block = views[chosen, down, right].reshape(rows, PIXELS)
        block = block * random.uniform(0.8, 1.2, (rows, 1)).astype(np.float32)
        block += random.standard_normal(block.shape, np.float32) * np.float32(0.06)
        yield np.clip(block, 0, 1, out=block), labels[chosen]


def make_rows(count: int, seed: int, rows_file: Path, labels_file: Path) -> None:
    """Writes variations of held-out digits and the truth about them, block by block: memory does not grow."""
    digits = load()
    with rows_file.open("wb") as rows, labels_file.open("wb") as truth:
        rows.write(header_bytes("FP32", (count, PIXELS)))
        truth.write(header_bytes("INT64", (count,)))
        for images, labels in augmented(digits.held_out_images, digits.held_out_labels, count, seed):
            rows.write(images.tobytes())
            truth.write(labels.tobytes())
