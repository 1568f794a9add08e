"""Bounds of inference: the unit is in the name, the reason beside it."""

from __future__ import annotations

from typing import Final

TENSOR_ELEMENTS: Final = 1 << 28
"""More would not fit into one message, whatever their type."""
BYTES_ELEMENTS: Final = 1 << 18
TYPED_ELEMENTS: Final = 1 << 20
"""Most elements of BYTES, and most typed contents, of one tensor: they are gone through one by one."""
REQUEST_TENSORS: Final = 256
REQUEST_PARAMETERS: Final = 64
RAW_IN_PLACE_BYTES: Final = 64 * 1024
"""From this size on the raw contents of a request are not copied out of the message: below, finding them costs more."""
MESSAGE_FIELDS: Final = 4096
"""Fields of such a message that are looked at: two for each tensor and a few."""
MODEL_NAME_BYTES: Final = 128
REQUEST_ID_BYTES: Final = 1024
PRIORITIES: Final = 3
"""1 goes first, 2 is what a request has that says nothing, 3 goes last."""
DEFAULT_PRIORITY: Final = 2

BATCH_ROWS: Final = 256
"""Most rows of a batch where its model says nothing: from here on a batch hides no more of the call's cost."""
BATCH_ROWS_MAX: Final = 65_536
BATCH_BYTES: Final = 16 * 1024 * 1024
"""Most bytes of input in a batch of several requests: it is copied together."""
BATCH_DELAY_US: Final = 1500
"""How long a request of many waits for company where its model says nothing: handing a batch to its actor
costs a third of a millisecond of processor time, whatever its size. One that is alone does not wait."""
BATCH_DELAY_MAX_US: Final = 1_000_000
PREFERRED_SIZES: Final = 16
QUEUE_REQUESTS: Final = 2048
QUEUE_BYTES: Final = 128 * 1024 * 1024
"""Requests, and bytes of them, waiting for one model; more are refused."""
RETRY_MS: Final = 50
RETRY_MAX_MS: Final = 5000
"""Least and most that a refused caller is told to wait; between them, as long as the queue takes."""
BATCH_MS: Final = 300_000
"""How long one batch may take before its actor is replaced."""
QUICK_NS: Final = 500_000
QUICK_BYTES: Final = 256 * 1024
"""How long a batch may usually take, and how large its input may be, to be run on the event loop: the loop's other
work waits meanwhile. To hand a batch to its actor costs about as much."""
QUICK_RUNS: Final = 4
"""Runs of about the same size in the actor before that."""
QUICK_WORST_NS: Final = 20_000_000
QUICK_PAUSE_RUNS: Final = 256
"""A run on the loop that took longer than this sends the model back to its actor for so many runs."""
STREAM_REQUESTS: Final = 64
"""Requests of one stream in hand at once."""
STATISTICS_MODELS: Final = 256
STATISTICS_SIZES: Final = 64
"""Model versions and batch sizes that are counted apart; the oldest make room."""

CATALOGUE_MODELS: Final = 4096
"""Registered models that a node keeps in mind."""
CATALOGUE_FRESH_MS: Final = 1000
"""How old an answer of the registry may be before it is asked again, behind the requests' backs."""
CATALOGUE_ANSWER_S: Final = 5.0
PEER_FRESH_MS: Final = 3500
"""A node that was not heard for this long gets no requests from others: three heartbeats."""
PEER_SHUNNED_MS: Final = 2000
"""How long a node that did not answer is passed over."""
PEERS: Final = 2000
FORWARD_CHANNELS: Final = 64
"""Connections to other nodes that are kept."""
RESPONSE_HEADS: Final = 512
"""Response heads that are kept ready, one for each number of rows."""

AUDIT_WINDOW_S: Final = 1.0
"""How often what was inferred is put into a batch: as much may be lost with a node that is killed."""
AUDIT_BATCH_REQUESTS: Final = 8192
AUDIT_BATCH_CALLERS: Final = 1024
"""Requests of one batch, and callers that they may have: some 75 bytes each, it stays below BROKER_MESSAGE_BYTES."""
AUDIT_BATCH_WINDOWS: Final = 256
AUDIT_ADDRESS_CHARACTERS: Final = 64
AUDIT_CALLER_CHARACTERS: Final = 2 * AUDIT_ADDRESS_CHARACTERS + 8
"""What is kept of a caller: its address, and that of who passed its request on."""
AUDIT_DIGEST_AT: Final = 512
"""Requests that wait to be digested before that is done without waiting for the window's end."""
AUDIT_SLICE: Final = 24
"""Requests that are digested before others may have the interpreter: a tenth of a millisecond."""
AUDIT_HELD_REQUESTS: Final = 16_384
AUDIT_HELD_BYTES: Final = 64 * 1024 * 1024
"""Requests, and bytes of their tensors, that wait to be digested; what comes beyond is counted as not recorded."""
AUDIT_DURATIONS: Final = 65_536
"""Durations that are kept before they are put into the sketch."""
AUDIT_SPOOL_BYTES: Final = 64 * 1024 * 1024
"""Batches that a node keeps on disk while the broker is away; then windows grow, and requests go unrecorded."""
AUDIT_CLOSE_S: Final = 1.0
"""How long a node that leaves tries to send its last batches; the next start sends the others."""
AUDIT_GATHER_S: Final = 1.0
AUDIT_GATHER_BYTES: Final = 256 * 1024
"""How long, and how much of, what nodes report is gathered for one record."""
AUDIT_SUMMARY_BYTES: Final = 160 * 1024
"""Largest summary of one batch in the log: the windows of 256 busy models are below it."""
AUDIT_READ_BATCHES: Final = 1000
DIGEST_HEADS: Final = 512
"""Tensor descriptions that are kept encoded."""
REPEATED_HEADS: Final = 64
REPEATED_MISSES: Final = 4096
"""Beginnings of requests that are kept, and requests unlike all of them after which they make room for others."""
FITTED_SHAPES: Final = 512
"""Shapes of requests that a model is known to take."""
