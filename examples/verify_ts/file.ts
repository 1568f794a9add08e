// A log file cut into entries, in constant memory.

import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";

const PIECE = 1 << 20;
const LARGEST_ENTRY = 4194304;
const TRAILER = 8;

/** The file is not what the format says, at this byte. */
export class Broken extends Error {
  readonly offset: number;
  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

/** Reads a log file from its beginning to its end. */
export class LogFile {
  private readonly fd: number;
  private readonly digests = createHash("sha256");
  private data: Buffer = Buffer.alloc(0);
  private at = 0;
  /** Offset of `data` in the file. */
  private base = 0;

  constructor(path: string) {
    this.fd = openSync(path, "r");
  }

  close(): void {
    closeSync(this.fd);
  }

  /** Where the next entry begins. */
  get offset(): number {
    return this.base + this.at;
  }

  /** SHA-256 of all that was read so far, up to `offset`. */
  digest(): Uint8Array {
    return this.digests.copy().digest();
  }

  takeMagic(): void {
    const magic = Buffer.from([0x89, 0x48, 0x46, 0x4c, 0x4f, 0x47, 0x0d, 0x0a]);
    this.fill(magic.length);
    if (!this.data.subarray(0, magic.length).equals(magic)) throw new Broken("this is no log file", 0);
    this.skip(magic.length);
  }

  /** The next entry's body, and its size with the length before it; the entry is read once `skip` says so. */
  entry(): { body: Uint8Array; size: number } {
    this.fill(4);
    let length = 0;
    let head = 0;
    for (;;) {
      if (this.at + head >= this.data.length) throw new Broken("the file ends within a length", this.offset);
      if (head === 4) throw new Broken("a length is too long", this.offset);
      const byte = this.data[this.at + head];
      length += (byte & 0x7f) * 2 ** (7 * head++);
      if (byte < 0x80) {
        if (byte === 0 && head > 1) throw new Broken("a length is longer than it needs to be", this.offset);
        break;
      }
    }
    if (length === 0 || length > LARGEST_ENTRY) throw new Broken("an entry has an impossible length", this.offset);
    this.fill(head + length);
    const body = this.data.subarray(this.at + head, this.at + head + length);
    if (body.length < length) throw new Broken("the file ends within an entry", this.offset);
    return { body, size: head + length };
  }

  /** Goes on behind the next `size` bytes. */
  skip(size: number): void {
    this.digests.update(this.data.subarray(this.at, this.at + size));
    this.at += size;
  }

  /** What is left of the file: all of it, or one byte more than a trailer has. */
  rest(): Buffer {
    this.fill(TRAILER + 1);
    return this.data.subarray(this.at, this.at + TRAILER + 1);
  }

  /** Lets `data` hold `size` bytes from `at` on, where the file has them. */
  private fill(size: number): void {
    if (this.data.length - this.at >= size) return;
    const left = this.data.subarray(this.at);
    const wanted = Math.max(size, PIECE);
    const data = Buffer.alloc(wanted);
    left.copy(data);
    this.base += this.at;
    this.at = 0;
    let filled = left.length;
    while (filled < wanted) {
      const count = readSync(this.fd, data, filled, wanted - filled, this.base + filled);
      if (count === 0) break;
      filled += count;
    }
    this.data = data.subarray(0, filled);
  }
}
