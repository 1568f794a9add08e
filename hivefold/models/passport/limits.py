"""Bounds on what an inspection looks at: a file may claim anything. The others are in hivefold.limits."""

from __future__ import annotations

from typing import Final

PASSPORT_PARTS: Final = 4_000_000
"""Opcodes, fields, tensors, entries and names that one inspection looks at: seconds, where models need a fraction."""
PASSPORT_FINDINGS: Final = 32
PASSPORT_NOTES: Final = 16
PASSPORT_TENSORS: Final = 64
PASSPORT_TEXT: Final = 200
"""Most findings, notes, inputs and outputs of a passport, and characters of one text: it is kept with the model."""
PASSPORT_DEPTH: Final = 4
"""Files in files: an archive in an archive, a pickle in a pickle."""
PASSPORT_BATCH_ROWS: Final = 65_536
DIRECTORY_FILES: Final = 4096
"""Files of a model's folder, and folders deep, that are looked at."""
DIRECTORY_DEPTH: Final = 8
PICKLE_TEXT_BYTES: Final = 64 * 1024
"""Longest text or number that is kept; of longer ones only the size."""
PICKLE_PICKLES: Final = 64
"""Pickles one after the other in one file, and in one another."""
ZIP_ENTRIES: Final = 65_536
ZIP_DIRECTORY_BYTES: Final = 32 * 1024 * 1024
UNPACKED_BYTES: Final = 64 * 1024 * 1024
"""Most bytes that one compressed part is unpacked to, in memory."""
UNPACKED_BYTES_IN_ALL: Final = 1024 * 1024 * 1024
"""Most bytes that all parts together are unpacked to, one after the other: seconds."""
UNPACKED_RATIO: Final = 100
"""What is larger than that and packed so well is a bomb, not a model: weights hardly pack at all."""
JSON_BYTES: Final = 16 * 1024 * 1024
"""Largest JSON text that is parsed: the header of a safetensors file with 100,000 tensors has 12 MB."""
GGUF_TEXT_BYTES: Final = 1024 * 1024
GGUF_DEPTH: Final = 4
HDF5_DEPTH: Final = 32
HDF5_CHUNKS: Final = 4096
"""Continuation blocks of one object's header."""
SSTABLE_BLOCK_BYTES: Final = 16 * 1024 * 1024
