// Verifies a log file of hivefold with nothing of hivefold: written from docs/log-format.md alone.
//
//     node examples/verify_ts/verify.ts FILE...
//
// Needs Node.js 22.18 or newer and no packages. Prints a JSON object for each file: what was found, or the first bad
// position and why. Exits 1 when a file is not in order, 2 when one cannot be read. Memory does not grow with the file.

import { Broken, LogFile } from "./file.ts";
import * as h from "./hashes.ts";
import * as wire from "./wire.ts";

const MARK_EVERY = 1024;
const MARKS = 4096;
const KEYS_KEPT = 8;

/** Something is wrong, first shown at this position of the log. */
class Wrong extends Error {
  readonly position: number;
  constructor(message: string, position: number) {
    super(message);
    this.position = position;
  }
}

function check(right: boolean, message: string, position: number): asserts right {
  if (!right) throw new Wrong(message, position);
}

/** What a file says of itself at its end, and what was found on the way there. */
class Verifier {
  private readonly file: LogFile;
  private chainId: Uint8Array = new Uint8Array();
  private first = 1;
  private last = 0;
  private lastHash: Uint8Array = h.ZEROS;
  private lastTerm = 0;
  private headerDigest: Uint8Array = h.ZEROS;
  private term = 0;
  private tree = new h.Range(0);
  private since = new h.Range(0);
  private signers: h.Key[] = [];
  private keys: h.Key[] = [];
  private keyNamed = false;
  private marks: Array<[number, number]> = [];
  private markEvery = MARK_EVERY;
  private records = 0;
  private checkpoints = 0;
  private signedUpTo = 0;

  constructor(path: string) {
    this.file = new LogFile(path);
  }

  /** Reads the whole file. Throws Wrong. */
  run(): object {
    try {
      this.file.takeMagic();
      this.takeHeader();
      while (!this.takeEntry());
    } catch (error) {
      // A broken entry stands where the next record should.
      if (error instanceof Broken || error instanceof wire.Malformed) throw new Wrong(error.message, this.last + 1);
      throw error;
    } finally {
      this.file.close();
    }
    return {
      valid: true,
      chainId: h.hex(this.chainId),
      firstSequence: this.first,
      lastSequence: this.last,
      lastHash: h.hex(this.lastHash),
      recordCount: this.records,
      checkpointCount: this.checkpoints,
      signedUpTo: this.signedUpTo,
      keyIds: this.signers.map((key) => key.id),
    };
  }

  get offset(): number {
    return this.file.offset;
  }

  private takeHeader(): void {
    const { body, size } = this.file.entry();
    const entry = wire.parse(body);
    check(kind(entry) === 1, "the first entry is no header", 1);
    const header = wire.parse(wire.bytes(entry, 1));
    check(wire.number(header, 1) === 1, "the file has another format", 1);
    const first = wire.number(header, 3);
    const previous = wire.bytes(header, 4);
    const keys = wire.messages(header, 5).map(key);
    check(first >= 1 && previous.length === 32, "the header does not say where the file begins", 1);
    check(first > 1 || h.equal(previous, h.ZEROS), "record 1 has none before it", 1);
    this.chainId = wire.bytes(header, 2).slice();
    [this.first, this.last, this.lastHash] = [first, first - 1, previous.slice()];
    keys.forEach((one, index) => {
      const right = h.isNamedRightly(one) && (index === 0 || h.follows(one, keys[index - 1], this.chainId));
      check(right, `the header's key ${one.id} is not what it says`, first);
    });
    this.signers = first > 1 ? keys : [];
    this.keys = [...this.signers];
    this.since = new h.Range(first - 1);
    this.file.skip(size);
    this.headerDigest = this.file.digest();
  }

  /** Takes the next entry; whether it was the end. */
  private takeEntry(): boolean {
    const { body, size } = this.file.entry();
    const entry = wire.parse(body);
    switch (kind(entry)) {
      case 2:
        this.takeRecord(wire.parse(wire.bytes(entry, 2)));
        break;
      case 3:
        this.takeCheckpoint(wire.parse(wire.bytes(entry, 3)));
        break;
      case 4:
        this.takeEnd(wire.parse(wire.bytes(entry, 4)), size);
        return true;
      default:
        throw new Wrong("an entry is neither a record nor a checkpoint nor the end", this.last + 1);
    }
    this.file.skip(size);
    return false;
  }

  private takeRecord(stored: wire.Fields): void {
    const position = this.last + 1;
    const subject = wire.text(stored, 2);
    const data = wire.bytes(stored, 3);
    const found = wire.number(stored, 1);
    check(found === position, `record ${position} is missing: the file goes on with ${found}`, position);
    const hash = h.recordHash(position, wire.bytes(stored, 2), data);
    check(h.equal(hash, wire.bytes(stored, 4)), `record ${position} does not have its hash`, position);
    check(position > 1 || h.equal(hash, this.chainId), "record 1 is that of another log", position);
    const record = wire.parse(data);
    check(wire.number(record, 1) === position, `record ${position} says another position`, position);
    check(h.equal(wire.bytes(record, 5), this.lastHash), `record ${position} does not follow the one before`, position);
    for (const event of wire.messages(record, 7)) {
      if (event.has(13)) this.changeKey(key(wire.parse(wire.bytes(event, 13))), position);
    }
    this.mark(position);
    const term = wire.number(record, 2);
    const termRight = term === this.term || this.term === 0 || (subject === "log.term" && term > this.term);
    check(termRight, `record ${position} carries term ${term} after term ${this.term}`, position);
    this.term = term;
    this.tree.add(hash);
    this.since.add(hash);
    this.records++;
    [this.last, this.lastHash] = [position, hash];
    if (subject === "log.term") this.lastTerm = position;
  }

  private changeKey(next: h.Key, position: number): void {
    const isFirst = this.first === 1 && !this.keyNamed;
    const right = isFirst
      ? next.previousId === "" && next.endorsement.length === 0
      : this.signers.some((known) => h.follows(next, known, this.chainId));
    check(h.isNamedRightly(next) && right, `record ${position} names a key that nobody vouches for`, position);
    [this.signers, this.keyNamed] = [[next], true];
    this.keys.push(next);
  }

  private takeCheckpoint(signed: wire.Fields): void {
    const position = this.last;
    const note = wire.text(signed, 1);
    const lines = note.split("\n");
    const [origin = "", sizeText = "", root = "", termLine = "", head = ""] = lines;
    const text = `${origin}\n${sizeText}\n${root}\n${termLine}\n${head}\n`;
    const prefix = `${text}\n\u2014 ${origin} `;
    const signature = base64(note.slice(prefix.length, -1));
    const isNote =
      note.startsWith(prefix) && note.endsWith("\n") && lines.length === 8 && note.length <= 2048 &&
      /^hivefold\/log\/[0-9a-f]{64}$/.test(origin) && /^[1-9][0-9]{0,18}$/.test(sizeText) &&
      base64(root)?.length === 32 && /^term [1-9][0-9]{0,18}$/.test(termLine) && /^head [0-9a-f]{64}$/.test(head);
    check(isNote && signature?.length === 68, "a checkpoint is no note", position);
    const size = Number(sizeText);
    check(size <= position, `record ${position + 1} is missing: the checkpoint of ${size} records comes here`, position + 1);
    check(size === position, `the checkpoint of ${size} records comes after record ${position}`, size);
    const previousSize = wire.number(signed, 3);
    const goesOn = this.signedUpTo === 0 || previousSize === this.signedUpTo;
    check(goesOn, "a checkpoint is missing, or is here twice", Math.max(previousSize, this.signedUpTo));
    check(origin === `hivefold/log/${h.hex(this.chainId)}`, "a checkpoint is of another log", position);
    this.checkKeys(wire.messages(signed, 4).map(key), position);
    const signer = this.signers.find((one) => h.equal(h.keyHash(origin, one), signature.subarray(0, 4)));
    const genuine = signer !== undefined && h.isSignedBy(signer, signature.subarray(4), Buffer.from(text));
    check(genuine, `the checkpoint after record ${position} is not signed by the log's key`, position);
    check(termLine === `term ${this.term}`, `the checkpoint after record ${position} has another term`, position);
    check(head === `head ${h.hex(this.lastHash)}`, `the checkpoint after record ${position} has another head`, position);
    const frontier = wire.byteses(signed, 5);
    const rooted = h.equal(h.rootOf(frontier), base64(root)!);
    check(rooted, `the frontier of the checkpoint after record ${position} does not have its root`, position);
    check(this.first > 1 || same(frontier, this.tree.hashes), `records up to ${position} were rewritten`, position);
    const whole = this.signedUpTo > 0 || previousSize === 0;
    const ranged = this.first > 1 || !whole || same(wire.byteses(signed, 2), this.since.hashes);
    check(ranged, `the range of the checkpoint after record ${position} is not that of its records`, position);
    this.since = new h.Range(position);
    this.checkpoints++;
    this.signedUpTo = position;
  }

  /** A checkpoint names the latest keys of the log. */
  private checkKeys(named: h.Key[], position: number): void {
    if (this.first > 1 && this.keys.length === 0) [this.keys, this.signers] = [named, named.slice(-1)];
    const known = JSON.stringify(this.keys.slice(-KEYS_KEPT).map(plain));
    check(JSON.stringify(named.map(plain)) === known, `the checkpoint after record ${position} names other keys`, position);
  }

  private takeEnd(end: wire.Fields, size: number): void {
    check(h.equal(wire.bytes(end, 6), this.headerDigest), "the header was altered", this.first);
    const told = wire.messages(end, 8).map((mark) => [wire.number(mark, 1), wire.number(mark, 2)]);
    const right =
      wire.number(end, 1) === this.records &&
      wire.number(end, 2) === this.last &&
      h.equal(wire.bytes(end, 3), this.lastHash) &&
      wire.number(end, 4) === this.checkpoints &&
      wire.number(end, 5) === this.lastTerm &&
      h.equal(wire.bytes(end, 7), this.file.digest()) &&
      JSON.stringify(told) === JSON.stringify(this.marks);
    check(right, "the end tells of another file", this.last);
    const offset = Buffer.alloc(8);
    offset.writeBigUInt64BE(BigInt(this.offset));
    this.file.skip(size);
    check(h.equal(this.file.rest(), offset), "the file does not end with the offset of its end entry", this.last);
  }

  /** Remembers where every so many-th record is, as the end does. */
  private mark(sequence: number): void {
    if (this.records % this.markEvery !== 0) return;
    this.marks.push([sequence, this.offset]);
    if (this.marks.length > MARKS) {
      this.marks = this.marks.filter((_, index) => index % 2 === 0);
      this.markEvery *= 2;
    }
  }
}

/** Which of the four an entry is; 0 when it is none, or several. */
function kind(entry: wire.Fields): number {
  const found = [1, 2, 3, 4].filter((number) => entry.has(number));
  return found.length === 1 ? found[0] : 0;
}

function key(fields: wire.Fields): h.Key {
  return {
    id: wire.text(fields, 1),
    raw: wire.bytes(fields, 2).slice(),
    previousId: wire.text(fields, 3),
    endorsement: wire.bytes(fields, 4).slice(),
  };
}

function plain(key: h.Key): string[] {
  return [key.id, h.hex(key.raw), key.previousId, h.hex(key.endorsement)];
}

/** Whether two lists of hashes are equal. */
function same(a: Uint8Array[], b: Uint8Array[]): boolean {
  return a.length === b.length && a.every((hash, index) => h.equal(hash, b[index]));
}

/** Base64 in the one way to write it; undefined when it is not. */
function base64(text: string): Uint8Array | undefined {
  const data = Buffer.from(text, "base64");
  return data.toString("base64") === text ? data : undefined;
}

/** Verifies one file; the exit code. */
function verify(path: string): number {
  let verifier: Verifier;
  try {
    verifier = new Verifier(path);
  } catch (error) {
    console.error(String(error));
    return 2;
  }
  try {
    console.log(JSON.stringify(verifier.run()));
    return 0;
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    const { position, message: reason } = error;
    console.log(JSON.stringify({ valid: false, position, offset: verifier.offset, reason }));
    return 1;
  }
}

const paths = process.argv.slice(2);
if (paths.length === 0) console.error("usage: node verify.ts FILE...");
process.exitCode = paths.length === 0 ? 2 : Math.max(...paths.map(verify));
