import { createHash } from "node:crypto";
import { recordHash } from "./hashes.ts";
import { checkKeys, KeyHistory } from "./keys.ts";
import { Marks } from "./marks.ts";
import { CompactRange, rootOf } from "./merkle.ts";
import {
  type End,
  type Header,
  parseEntry,
  parsePayload,
  type SignedCheckpoint,
  type StoredRecord,
} from "./messages.ts";
import { isNoteSignedBy, type Note, parseNote } from "./note.ts";
import { type Entry, Source } from "./source.ts";
import { at, check } from "./wrong.ts";

const MAGIC = Buffer.from([0x89, 0x48, 0x46, 0x4c, 0x4f, 0x47, 0x0d, 0x0a]);
const ZERO_HASH = Buffer.alloc(32);
const TERM_SUBJECT = "log.term";

export type Summary = {
  firstSequence: bigint;
  lastSequence: bigint;
  recordCount: bigint;
  lastHash: string;
  checkpointCount: bigint;
  signedUpTo: bigint; // size of the last checkpoint; 0 if there is none
};

/** Verifies the log file that is open as `fd`; throws `Wrong` at the first thing that is not in order. */
export function verifyLogFile(fd: number): Summary {
  const source = new Source(fd);
  const digest = createHash("sha256");
  const header = at(1n, () => readHeader(source, digest));
  at(1n, () => checkKeys(header.keys, header.chainId));
  const headerDigest = digest.copy().digest();
  const log = new LogVerifier(header);
  while (true) {
    const { entry, content } = at(log.nextSequence, () => {
      const entry = source.entry();
      const content = parseEntry(entry.body);
      check(content.kind !== "header", "a second header");
      return { entry, content };
    });
    if (content.kind === "end") {
      const { end } = content;
      check(end.headerDigest.equals(headerDigest), "the end has another digest of the header", 1n);
      at(log.lastSequence, () => {
        log.checkEnd(end);
        check(end.digest.equals(digest.digest()), "the end has another digest of the file");
        checkTrailer(source, entry);
      });
      return log.summary();
    }
    digest.update(entry.raw);
    if (content.kind === "record") at(log.nextSequence, () => log.addRecord(content.record, entry.offset));
    if (content.kind === "checkpoint") at(log.lastSequence, () => log.addCheckpoint(content.checkpoint));
  }
}

function readHeader(source: Source, digest: { update(bytes: Buffer): unknown }): Header {
  const magic = source.take(MAGIC.length);
  check(magic.equals(MAGIC), "not a log file: it begins with other bytes");
  digest.update(magic);
  const entry = source.entry();
  digest.update(entry.raw);
  const content = parseEntry(entry.body);
  check(content.kind === "header", "the first entry is not the header");
  const { header } = content;
  check(header.formatVersion === 1n, `the file has format version ${header.formatVersion}`);
  check(header.firstSequence >= 1n, "the header has no first_sequence");
  check(header.previousHash.length === 32, "the header's previous_hash does not have 32 bytes");
  check(header.firstSequence > 1n || header.previousHash.equals(ZERO_HASH), "a record before the first has a hash");
  return header;
}

function checkTrailer(source: Source, endEntry: Entry): void {
  const trailer = source.take(8);
  check(trailer.length === 8, "the file ends within the trailer");
  check(trailer.readBigUInt64BE() === endEntry.offset, "the trailer does not tell where the end entry is");
  check(source.take(1).length === 0, "something follows the trailer");
}

/** What the entries between header and end are checked against. */
class LogVerifier {
  lastSequence: bigint;
  #header: Header;
  #lastHash: Buffer;
  #lastTerm: bigint | undefined; // undefined before the first record in the file
  #lastTermSequence = 0n;
  #checkpointCount = 0n;
  #signedUpTo = 0n;
  #keys: KeyHistory;
  #marks = new Marks();
  // The tree over all records; in a file that begins later, undefined until a checkpoint tells what came before.
  #tree: CompactRange | undefined;
  // The part of it since the last checkpoint.
  #range: CompactRange;

  constructor(header: Header) {
    const fromFirstRecord = header.firstSequence === 1n;
    this.#header = header;
    this.lastSequence = header.firstSequence - 1n;
    this.#lastHash = header.previousHash;
    this.#keys = new KeyHistory(header.chainId, header.keys, fromFirstRecord);
    this.#tree = fromFirstRecord ? new CompactRange(0n) : undefined;
    this.#range = new CompactRange(this.lastSequence);
  }

  get nextSequence(): bigint {
    return this.lastSequence + 1n;
  }

  get #recordCount(): bigint {
    return this.nextSequence - this.#header.firstSequence;
  }

  addRecord(record: StoredRecord, offset: bigint): void {
    const sequence = this.nextSequence;
    check(record.sequence === sequence, `record ${record.sequence} stands where ${sequence} should`);
    const subject = Buffer.from(record.subject);
    check(subject.length <= 0xffff, "the subject is too long to be hashed");
    const hash = recordHash(sequence, subject, record.data);
    check(record.hash.equals(hash), "the hash is not that of the record");
    check(sequence > 1n || hash.equals(this.#header.chainId), "the header's chain_id is not the hash of record 1");

    const payload = parsePayload(record.data);
    check(payload.sequence === sequence, `the payload says that it is record ${payload.sequence}`);
    check(payload.previousHash.equals(this.#lastHash), "previous_hash is not the hash of the record before");
    const lastTerm = this.#lastTerm ?? payload.term;
    const startsTerm = record.subject === TERM_SUBJECT;
    check(
      payload.term === lastTerm || (startsTerm && payload.term > lastTerm),
      `term ${payload.term} does not follow term ${lastTerm} here`,
    );
    for (const key of payload.keyChanges) this.#keys.change(key);

    this.#marks.add(this.#recordCount, { sequence, offset });
    this.#tree?.push(hash);
    this.#range.push(hash);
    this.#lastHash = hash;
    this.#lastTerm = payload.term;
    if (startsTerm) this.#lastTermSequence = sequence;
    this.lastSequence = sequence;
  }

  addCheckpoint(checkpoint: SignedCheckpoint): void {
    const note = parseNote(checkpoint.note);
    this.#checkSize(note, checkpoint);
    check(note.chainId === this.#header.chainId.toString("hex"), "a checkpoint of another log");
    const signer = this.#keys.signerOf(checkpoint.keys);
    check(isNoteSignedBy(note, signer.publicKey), `a checkpoint is not signed by key ${signer.keyId}`);
    check(note.term === this.#lastTerm, `a checkpoint says term ${note.term}, the record before it has another`);
    check(note.head === this.#lastHash.toString("hex"), "a checkpoint's head is not the hash of the record before it");
    this.#checkTree(note, checkpoint);
    this.#checkpointCount++;
    this.#signedUpTo = note.size;
    this.#range = new CompactRange(note.size);
  }

  checkEnd(end: End): void {
    check(end.recordCount === this.#recordCount, "the end has another record_count");
    check(end.lastSequence === this.lastSequence, "the end has another last_sequence");
    check(end.lastHash.equals(this.#lastHash), "the end has another last_hash");
    check(end.checkpointCount === this.#checkpointCount, "the end has another checkpoint_count");
    check(end.lastTermSequence === this.#lastTermSequence, "the end has another last_term_sequence");
    check(this.#marks.equal(end.marks), "the end has other marks");
  }

  summary(): Summary {
    return {
      firstSequence: this.#header.firstSequence,
      lastSequence: this.lastSequence,
      recordCount: this.#recordCount,
      lastHash: this.#lastHash.toString("hex"),
      checkpointCount: this.#checkpointCount,
      signedUpTo: this.#signedUpTo,
    };
  }

  #checkSize(note: Note, { previousSize, keys }: SignedCheckpoint): void {
    const last = this.lastSequence;
    check(note.size <= last, `a checkpoint over ${note.size} records follows record ${last}`, this.nextSequence);
    const moved = note.size < last && isNoteSignedBy(note, keys.at(-1)?.publicKey); // else it was altered where it stands
    check(note.size >= last, `a checkpoint over ${note.size} records follows record ${last}`, moved ? note.size : last);
    check(this.#recordCount > 0n, "a checkpoint with no record before it", this.nextSequence);
    if (this.#checkpointCount === 0n) return;
    const before = this.#signedUpTo;
    const larger = previousSize > before ? previousSize : before;
    check(previousSize === before, `a checkpoint says that one over ${previousSize} records is before it`, larger);
  }

  #checkTree(note: Note, { frontier, range, previousSize }: SignedCheckpoint): void {
    check(rootOf(frontier, note.size)?.equals(note.root) === true, "a checkpoint's frontier does not have its root");
    if (!this.#tree) {
      this.#tree = CompactRange.ofFrontier(frontier, note.size);
      return;
    }
    check(equalHashes(frontier, this.#tree.roots()), "a checkpoint is not over the records in the file");
    if (this.#checkpointCount === 0n && previousSize !== 0n) return; // the range begins who knows where
    check(equalHashes(range, this.#range.roots()), "a checkpoint's range is not over the records since the one before");
  }
}

function equalHashes(a: Buffer[], b: Buffer[]): boolean {
  return a.length === b.length && a.every((hash, i) => hash.equals(b[i]!));
}
