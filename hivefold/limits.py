"""Every bound in one place: its unit is in its name, its reason beside it."""

from __future__ import annotations

from typing import Final

# -- messages ---------------------------------------------------------------
GRPC_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Largest gRPC message both ways: the default of 4 MiB bites every tensor project."""
GRPC_METADATA_BYTES: Final = 8 * 1024
GRPC_CONCURRENT_STREAMS: Final = 256
GRPC_CONCURRENT_RPCS: Final = 1024
GRPC_DEADLINE_S: Final = 30.0
"""Deadline of a unary call where the caller gives none."""
STREAM_PIECE_BYTES: Final = 960 * 1024
"""Piece size of uploads and downloads: one chunk, uncut. Measured: a full MiB takes half as long again."""
STREAM_PIECE_MAX_BYTES: Final = 1024 * 1024  # largest that is taken
BROKER_MESSAGE_BYTES: Final = 1024 * 1024
"""NATS' default max_payload; nothing larger is ever published."""
BROKER_READ_BYTES: Final = 1024 * 1024
"""What is read from a NATS connection at once."""
RECORD_BYTES: Final = 900 * 1024
"""Largest record; leaves room for headers below BROKER_MESSAGE_BYTES."""

# -- broker connection --------------------------------------------------------
BROKER_CONNECT_S: Final = 2
BROKER_FLUSH_S: Final = 10
BROKER_PING_S: Final = 20
BROKER_PENDING_BYTES: Final = 8 * 1024 * 1024
"""Bytes waiting for the socket before a publish waits; also what is kept while disconnected."""
RECONNECT_WAIT_MS: Final = 250
"""First wait before a reconnect; doubles up to RECONNECT_WAIT_MAX_MS, with jitter."""
RECONNECT_WAIT_MAX_MS: Final = 2000
BROKER_ANSWER_S: Final = 5.0
"""How long an answer of the broker is waited for."""
BROKER_RETRY_MS: Final = 50
"""First wait before the broker is asked again; doubles up to BROKER_RETRY_MAX_MS."""
BROKER_RETRY_MAX_MS: Final = 1000
PULL_MESSAGES: Final = 1000
"""Messages that a receiver holds or has asked for."""
PULL_BYTES: Final = 8 * 1024 * 1024
"""Bytes that one request brings at most; with more than half of them held, none is made."""
PULL_EXPIRES_S: Final = 60
PULL_HEARTBEAT_S: Final = 5
"""Sign of life of an idle pull; a receiver that misses two asks anew."""
RESULTS_ACK_WAIT_S: Final = 3600
"""Long, for the receiver itself finds what is missing and begins there."""
ACK_DELAY_MS: Final = 50
"""How long an acknowledgement to the broker waits for others: far below any wait after which it sends again."""
EXPRESS_ITEMS, EXPRESS_WAITING = 8, 256
"""Attempts of a message that goes out as a signal, too; outcomes that came as one, their stored copy still to come."""
EXPRESS_COPY_MS: Final = 10
"""How long what went out as a signal may take to be done; then it goes to its stream, too."""
EXPRESS_STORE_MS: Final = 2
"""How long an outcome that went out as a signal leaves the disk to the record of it."""
RESULTS_UNACKNOWLEDGED: Final = 50_000
"""Results handed to the coordinator and not yet recorded; then the broker waits."""
RESULTS_ROOM_S: Final = 5.0
RESULTS_CROWDED_PERCENT: Final = 80  # of the stream's bytes: then the oldest outcomes of ended jobs go
BATCH_BYTES: Final = 4 * 1024 * 1024
RESULTS_IN_FLIGHT: Final = 4
"""Batches of one sender under way at once."""
EVENTS_BATCH: Final = 500

SECRET_BYTES: Final = 64 * 1024
"""Largest file that is read as one secret."""

# -- log --------------------------------------------------------------------
APPEND_BATCH_RECORDS: Final = 1000
"""JetStream refuses larger atomic batches (error 10199)."""
APPEND_CHAIN_RECORDS: Final = 8
"""Fewer go out as a chain: 0.2 ms a record, where any batch takes 4 ms (measured: even at about 12)."""
APPEND_OVERHEAD_BYTES: Final = 512
"""What subject, headers and the store add to a record, at most."""
APPEND_BATCH_BYTES: Final = 8 * 1024 * 1024
APPEND_TIMEOUT_S: Final = 5.0
"""How long an append may be unanswered before it counts as uncertain."""
APPEND_RESOLVE_S: Final = 60.0
"""How long an uncertain append is looked for before the coordinator gives up and restarts."""
APPEND_RETRY_MS: Final = 2
"""First wait before an unsettled append is tried again; doubles up to APPEND_RETRY_MAX_MS."""
APPEND_RETRY_MAX_MS: Final = 500
LOG_BYTES: Final = 16 * 1024 * 1024 * 1024
"""Size at which the log refuses records unless log_max_bytes says otherwise."""
SEGMENT_RECORDS: Final = 4_000_000
SEGMENT_BYTES: Final = 2 * 1024 * 1024 * 1024  # as with the line above: a segment of this size is closed
RECENT_COMMITS: Final = 256
"""Commits kept in memory for watchers that come a little late; older ones are read from the log."""
READ_PAGE_RECORDS: Final = 1000
READ_PAGE_BYTES: Final = 1024 * 1024
READ_TIMEOUT_S: Final = 5.0
"""How long a page of the log may be unanswered before it is asked for again."""
READ_TRIES: Final = 4
LOG_FILE_ENTRY_BYTES: Final = 4 * 1024 * 1024
"""Largest entry of a log file; what claims to be larger is damaged."""
DURABLE_FILE_BUFFER_BYTES: Final = 1024 * 1024  # what is written to a file at once
LOG_FILE_READ_BYTES: Final = 1024 * 1024  # what is read from a log file at once
LOG_FILE_MARKS: Final = 4096
"""Most places that the end of a log file names; between them readers skip."""
LOG_FILE_MARK_RECORDS: Final = 1024
"""Records between two marks, until there would be too many marks."""
CHECKPOINT_INTERVAL_S: Final = 1.0
SIGNING_KEYS_KEPT: Final = 8
"""Signing keys that a checkpoint names: a node that missed more rotations has to be told to trust anew."""
SNAPSHOT_RECORDS: Final = 10_000
SNAPSHOT_LOG_BYTES: Final = 3 * 1024 * 1024
"""Records, or bytes of them, after which a snapshot is due: a third of a second of replay."""
SNAPSHOT_LEADER_PATIENCE: Final = 2
"""How many times as long a leader waits: where there are standbys they write the snapshots."""
SNAPSHOT_LOOK_S: Final = 1.0
SNAPSHOT_RETRY_S: Final = 30.0  # after one that could not be written: writing a large state takes seconds
SNAPSHOT_FRAME_ENTRIES: Final = 200
"""Entries encoded at once: the coordinator answers in between."""
SNAPSHOT_PART_BYTES: Final = 512 * 1024
SNAPSHOT_BYTES: Final = 1024 * 1024 * 1024
"""Largest part and largest snapshot before they are compressed; a larger state is replayed."""
SNAPSHOTS_KEPT: Final = 3
INDEX_ROWS: Final = 500
INDEX_FLUSH_S: Final = 2.0
"""Ended jobs, or time, after which the index stores how far it has come."""
INDEX_WAIT_S: Final = 0.5
INDEX_RETRY_S: Final = 1.0
"""How long a list waits for an index that is behind, and that for a new leader or a file that can be written."""
HISTORY_READS: Final = 2
HISTORY_WAITING: Final = 64
"""Ended jobs that are read from the log at once, and with those that wait for it; more are refused."""
HISTORY_READ_S: Final = 25.0
"""How long reading one ended job may take, from a long log for a job that took long."""
HISTORY_JOBS: Final = 64
HISTORY_TASKS: Final = 100_000
"""Ended jobs that were read and are kept in memory, and the tasks that they may hold together."""
HISTORY_SLICE_RECORDS: Final = 32
"""Records that a reader of the past folds before it lets others go on."""
COMMAND_QUEUE: Final = 4096
"""Commands waiting for the writer; more are refused with LIMIT_EXCEEDED."""
FOLLOWER_QUEUE: Final = 1024
"""Records a follower may lag before it has to read the log itself."""

DISPATCH_QUEUE: Final = 65_536
"""Actions waiting to be sent; beyond it the whole plan is performed anew."""
DISPATCH_WINDOW: Final = 64  # work messages in flight at once
CLEAR_BACKLOG: Final = 1000
"""Ended jobs whose outcomes may wait to be dropped while other jobs run."""
CLEAR_INTERVAL_MS: Final = 250
"""How often the outcomes of ended jobs are dropped from the results stream."""
RESEND_DELAY_S: Final = 0.5
"""Wait before something that the broker or the log refused is tried again."""
OUTCOME_COMMAND: Final = 500  # most outcomes in one command: bounds its record
FAILURE_CHARACTERS: Final = 400  # longest message of a node's failure that is recorded
IDLE_BEATS_BEFORE_RESEND: Final = 3
"""Heartbeats in which a node says it has nothing while it is owed work, before it is sent again."""
HEALTH_INTERVAL_S: Final = 0.2  # how often health is brought up to date
BROKER_START_S: Final = 10.0  # how long a daemon waits for its server at start
TICK_S: Final = 0.1  # how often time alone may make a command due

# -- a group of coordinators ----------------------------------------------------
LEASE_TTL_S: Final = 3
"""How long a claim of the lease holds; the server looks for lapsed ones about once a second."""
LEASE_ANSWER_S: Final = 1.0
LEASE_POLL_MS: Final = 250
LEASE_GONE_MS: Final = 1000
"""How long the broker must have no connection of the leader before a standby takes over: reconnects take less."""
LEAD_AGAIN_S: Final = 0.5
HAND_OVER_S: Final = 2.0
HAND_OVER_REST_S: Final = 3.0
"""How long a leader that handed over on request leaves the lease to others before it tries for it again."""
STANDBY_POLL_S: Final = 1.0
STANDBY_PAUSE_S: Final = 0.02
STANDBY_REACH_S: Final = 2.0
"""How long a read waits for a standby to reach the record that it asks for."""
STANDBY_STALE_MS: Final = 5000
"""From when on a standby that hears nothing of the log's end is not healthy."""

# -- jobs -------------------------------------------------------------------
JOB_TASKS: Final = 1_000_000
JOB_LABELS: Final = 32
LABEL_BYTES: Final = 256
NOTE_BYTES: Final = 1024
SOURCE_BYTES: Final = 256
PATH_BYTES: Final = 4096
SUBJECT_BYTES: Final = 256
OPEN_JOBS: Final = 10_000
RECENT_JOBS: Final = 1000
RECENT_TASKS: Final = 100_000
"""Ended jobs that the state keeps, and tasks that they may hold together; older ones are read from the log. These
five are part of the fold: another value is another state for the same log."""
REQUESTS_KEPT: Final = 100_000
"""Requests that are known again after their jobs have left the state."""
GONE_NODES: Final = 1000
RATES_KEPT: Final = 1000
"""Nodes that are gone and still listed, kinds of work whose speed is known: the oldest goes first."""
MAX_ATTEMPTS: Final = 20
DEFAULT_MAX_ATTEMPTS: Final = 3
TASK_LOSSES: Final = 8
"""Attempts of one task that may be lost with their node before it counts as the cause."""
TASK_RETURNS: Final = 32
"""Times that nodes may give one task back; from then on each counts as a failure."""
JOB_TIMEOUT_S: Final = 30 * 24 * 3600
TASK_TARGET_MS: Final = 1000
"""Default target duration of a task."""
TASK_TARGET_MAX_MS: Final = 600_000
PROBE_DURATION_MAX_MS: Final = 3_600_000
RETRY_BACKOFF_MS: Final = 200
"""First wait before a failed task is tried again; doubles up to RETRY_BACKOFF_MAX_MS."""
RETRY_BACKOFF_MAX_MS: Final = 10_000
ASSIGN_BATCH_TASKS: Final = 1024
"""Most tasks in one TasksAssigned event: bounds a work message."""
PLACE_DECISION_TASKS: Final = 16_384
"""Most tasks that one placement decision assigns: bounds its record; the next decision goes on."""
NODE_QUEUE_MS: Final = 500
"""Work that is sent ahead to a node beyond its slots, in measured time."""
NODE_QUEUE_TASKS: Final = 2048  # most attempts outstanding with one node
SHARD_ROWS_MAX: Final = 50_000_000
TENSOR_RANK: Final = 8
ROW_BYTES: Final = 64 * 1024 * 1024
SHARD_INPUT_BYTES: Final = 32 * 1024 * 1024
"""Largest input of one task: bounds a node's memory."""
BUFFERS_KEPT_S: Final = 5.0  # how long an idle node keeps the memory for rows
SHARD_OUTPUT_BYTES: Final = 32 * 1024 * 1024
PILOT_BYTES: Final = 4 * 1024 * 1024
"""Largest input of the first tasks of a model whose speed is not known."""
PILOT_WORK: Final = 2_000_000_000
"""Weight bytes times rows that a first task touches at most: a fraction of a second on one core."""
PLACEMENT_REASON_NODES: Final = 16
"""Most nodes named on each side of a recorded placement reason."""
EVIDENCE_FAILURES: Final = 8  # most earlier failures named in a job's failure
CANCEL_REPEAT_US: Final = 60_000_000
"""How long a node is told again to give up the attempts of an ended job."""
OBSERVE_INTERVAL_US: Final = 10_000_000
"""Least time between two recorded observations of a node whose models did not change."""
FLEET_NODES: Final = 1000
NODES_HEARD: Final = 2 * FLEET_NODES + GONE_NODES
"""Senders of heartbeats that are kept in mind: those of the fleet and its former ones, and as many that are neither."""

# -- nodes ------------------------------------------------------------------
HEARTBEAT_MS: Final = 1000
SUSPECT_AFTER_MS: Final = 3000
LOST_AFTER_MS: Final = 6000
WITNESS_PATIENCE_MS: Final = 4000
"""How long a node waits for a coordinator that can prove itself before it refuses one that does not."""
UNPROVEN_WORK_S: Final = 10.0
FENCE_AFTER_MS: Final = 15_000
"""A node that hears no pulse for this long drops what it has not started."""
DRAIN_S: Final = 20.0  # how long SIGTERM lets a node finish what runs
WORK_ACK_WAIT_S: Final = 30.0
RESULTS_BATCH: Final = 500
"""Most outcomes in one atomic batch. The server spends 23 us on each in batches of 200, 15 us from 400 on."""
RESULTS_SINGLES: Final = 6
"""Up to this many outcomes are stored one by one, side by side: an atomic batch costs 2.8 ms at least."""
INLINE_OUTPUT_BYTES: Final = 64 * 1024
"""Larger outputs go to the blob store."""
INBOX_MESSAGES: Final = 1024
"""Messages waiting for one actor."""
SEEN_ATTEMPTS: Final = 32_768
"""Attempts that a node surely knows again when they are repeated; a forgotten repeat is run in vain, no more."""
NODE_SLOTS: Final = 1024
NODE_GPUS: Final = 1024
NODE_PREFETCH: Final = 2
"""Attempts beyond its slots whose input a node fetches or whose output it stores while others compute."""
MODELS_LOADED, MODELS_LOADED_MAX = 32, 256
"""Models that a node keeps loaded unless `models` says otherwise, and the most that it may say."""
MODEL_MEMORY_SHARE: Final = 0.8
"""The part of a machine's memory, and of each GPU's, that a node's models may take."""
MODEL_IDLE_S: Final = 600.0
"""How long a loaded model may be unused before it is unloaded."""
MODEL_FILES_KEPT: Final = 64
"""Model files in a node's local folder; the one unused for longest goes first."""
MODEL_LOAD_MS: Final = 600_000
"""How long a model may take to be verified and loaded."""
ATTEMPT_MS: Final = 3_600_000
"""How long one attempt may take where its job has no earlier deadline."""
PROBES_ASK_MS: Final = 60_000
"""How long an actor that has nothing to compute may take to answer: reading a shard, a probe, a measurement."""
MANIFESTS_KEPT: Final = 8
"""Blob manifests that a node keeps in memory: 64 bytes for each MiB of content."""
READING_MS: Final = 2000
"""How often a node measures its hardware."""

# -- blobs and models ---------------------------------------------------------
CHUNK_BYTES: Final = STREAM_PIECE_BYTES
"""Chunk size of stored content, each stored with an fsync: large, yet below BROKER_MESSAGE_BYTES with headers."""
PLAIN_CHUNK_BYTES: Final = 512 * 1024  # of content that is not sealed: 0.1.0, which seals nothing, reads no more
STORED_CHUNK_BYTES: Final = CHUNK_BYTES + 64  # with what sealing adds
MANIFEST_PART_BYTES: Final = 512 * 1024
KEY_ID_BYTES: Final = 128
ERASURES_KEPT: Final = 256  # at hand; as many may be owed at once, while their keys are not known to be gone
BLOB_BYTES: Final = 1 << 44
BLOB_WINDOW: Final = 16
"""Chunks of one upload or download under way: bounds its memory, hides the round trips."""
BLOB_ANSWER_S: Final = 20.0
BLOB_PATIENCE_S: Final = 60.0
"""How long a chunk is tried again while the broker is away."""
HASH_THREADS: Final = 8
MODEL_BYTES: Final = 2 * 1024 * 1024 * 1024 - 1
"""protobuf's own bound, and so ONNX's."""
MODEL_FIELDS: Final = 4_000_000
"""Fields of a model file that are looked at: seconds, where real models need a fraction of one."""
MODEL_NODES: Final = 1_000_000
"""Operators once functions are unfolded."""
MODEL_GRAPH_DEPTH: Final = 16
MODEL_CALL_DEPTH: Final = 32
MODEL_NAME_BYTES: Final = 1024
MODEL_TENSORS: Final = 256
"""Most inputs, and most outputs, of a model: they are in the log."""

# -- data sets ------------------------------------------------------------------
NPY_HEADER_BYTES: Final = 64 * 1024
CSV_LINE_BYTES: Final = 16 * 1024 * 1024
CSV_BLOCK_BYTES: Final = 1024 * 1024
"""Text parsed at once."""
ARCHIVE_MEMBERS: Final = 10_000
OUTPUT_WINDOW_PIECES: Final = 16
OUTPUT_WINDOW_BYTES: Final = 32 * 1024 * 1024
"""What is fetched ahead of a download."""

# -- paging -------------------------------------------------------------------
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 1000

# -- calls ----------------------------------------------------------------------
GRPC_DEADLINE_MAX_S: Final = 300.0
"""Longest that a unary call may take, whatever deadline it carries."""
SUBMIT_WAIT_S: Final = 25.0
"""Longest that the answer to a submit waits for the job's end; below GRPC_DEADLINE_S, so that it still arrives."""
GRPC_STREAM_S: Final = 24 * 3600.0
"""Longest that one stream lives; watches are resumed."""
GRPC_KEEPALIVE_MS: Final = 60_000
GRPC_KEEPALIVE_TIMEOUT_MS: Final = 10_000
GRPC_PING_LEAST_MS: Final = 30_000
"""More frequent pings of a client end its connection."""
GRPC_HEAR_OUT_S: Final = 0.5
"""How long a refused upload may go on before its caller is told."""
GRPC_STOP_S: Final = 5.0
"""How long running calls may finish when a server stops."""
PORT_TRIES: Final = 64
"""Ports tried after one that is taken, where the next free one will do."""
ERROR_MESSAGE_BYTES: Final = 800
ERROR_STATUS_BYTES: Final = 3 * 1024
"""Both travel in the trailing metadata, where GRPC_METADATA_BYTES is the bound of most clients."""
TRANSFER_DEADLINE_S: Final = 6 * 3600.0
"""Longest upload or download."""
DIGEST_DEADLINE_S: Final = 300.0
"""Longest wait for the digest of a large state."""
CALL_AGAIN_MS: Final = 3000
CALL_ELECTION_MS: Final = 15_000
"""How long a call is sent again while its coordinator is away, and while a group elects: that takes seconds."""
CALL_RETRY_MS: Final = 100
CALL_RETRY_MAX_MS: Final = 1000
CALL_DOUBT_S: Final = 1.0
CALL_FIND_S: Final = 2.0
WATCH_RESUME_S: Final = 60.0
"""How long a cut watch tries to go on before it gives up."""
WATCH_RETRY_MS: Final = 100
"""First wait before a cut watch goes on; doubles up to WATCH_RETRY_MAX_MS."""
WATCH_RETRY_MAX_MS: Final = 2000
LOADED_WAIT_S, LOADED_WAIT_MAX_S = MODEL_LOAD_MS / 1000, 24 * 3600.0
"""How long a model is waited for to be loaded unless the caller says otherwise, and the most that it may say."""
LOADED_LOOK_MS, LOADED_LOOK_MAX_MS = 200, 2000
"""First pause between two looks whether a model is loaded; doubles up to the second."""
TELEMETRY_FLUSH_MS: Final = 3000
"""How long a stopping process waits for its last spans and metrics to be taken."""

# -- a local fleet (hivefold up) --------------------------------------------------
LOCAL_NODES: Final = 64
"""Most nodes that `up` starts on one machine."""
LOCAL_COORDINATORS: Final = 9
LOCAL_LEADER_S: Final = 1.0
LOCAL_READY_S: Final = 60.0
"""How long the daemons may take to serve; a long log has to be replayed first."""
LOCAL_POLL_S: Final = 0.02
COORDINATOR_STOP_S: Final = 10.0
"""How long the coordinator may take to end before it is killed."""
NODE_STOP_S: Final = DRAIN_S + 5.0
"""How long a node may take to finish what runs and to end before it is killed."""
DAEMON_LOG_BYTES: Final = 10 * 1024 * 1024
"""Size at which a daemon's log is turned over; one older file is kept."""
DAEMON_LOG_CHECK_S: Final = 5.0
LAST_WORDS_LINES: Final = 12
"""Lines of a daemon's log that are shown when it fails."""
MODEL_VERSION_MAX: Final = 999_999_999
"""Nine digits: what a reference name@version can say."""
UPLOAD_IDLE_S: Final = 60.0
"""How long an upload may bring nothing before it is ended: its place is for others."""
MODEL_UPLOADS: Final = 4
"""Model files received at once: bounds the temporary disk space."""
FEED_QUEUE: Final = 4 * EVENTS_BATCH
"""Records whose public events are not yet stored; beyond it the feed lags and reads the log."""
FEED_INTERVAL_MS: Final = 50
"""Least time between two batches of public events: stored job by job they took half of the broker's time."""
FEED_MAX_AGE_S: Final = 24 * 3600
"""How far back the feed goes when the event stream is empty: as far as the stream would keep events."""
