import { readSync } from "node:fs";
import { check } from "./wrong.ts";

const MAX_BODY = 4194304;
const MAX_LENGTH_BYTES = 4;

export type Entry = {
  offset: bigint; // of the first byte of the length, from the start of the file
  raw: Buffer; // length and body
  body: Buffer;
};

/** Reads a file from front to back; holds no more of it than one entry and what was read ahead. */
export class Source {
  offset = 0n;
  #fd: number;
  #buffer = Buffer.allocUnsafe(65536);
  #start = 0;
  #end = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The next `size` bytes, fewer where the file ends before. */
  take(size: number): Buffer {
    this.#fill(size);
    // A copy, because the buffer is used again, and parts of what is returned are kept (hashes, keys).
    const bytes = Buffer.from(this.#buffer.subarray(this.#start, Math.min(this.#start + size, this.#end)));
    this.#start += bytes.length;
    this.offset += BigInt(bytes.length);
    return bytes;
  }

  entry(): Entry {
    const { lengthBytes, bodySize } = this.#length();
    const offset = this.offset;
    const raw = this.take(lengthBytes + bodySize);
    check(raw.length === lengthBytes + bodySize, "the file ends within an entry");
    return { offset, raw, body: raw.subarray(lengthBytes) };
  }

  /** Looks at the length of the next entry, without moving past it. */
  #length(): { lengthBytes: number; bodySize: number } {
    let bodySize = 0;
    for (let i = 0; i < MAX_LENGTH_BYTES; i++) {
      check(this.#fill(i + 1), i === 0 ? "the file ends without an end entry" : "the file ends within a length");
      const byte = this.#buffer[this.#start + i]!;
      bodySize |= (byte & 0x7f) << (7 * i);
      if (byte & 0x80) continue;
      check(i === 0 || byte !== 0, "the length of an entry is not as short as possible");
      check(bodySize >= 1 && bodySize <= MAX_BODY, `an entry has a length of ${bodySize}`);
      return { lengthBytes: i + 1, bodySize };
    }
    check(false, `the length of an entry has more than ${MAX_LENGTH_BYTES} bytes`);
  }

  /** Reads until `size` bytes are at hand; false if the file ends before. */
  #fill(size: number): boolean {
    if (this.#start + size > this.#buffer.length) {
      const target = size > this.#buffer.length ? Buffer.allocUnsafe(size) : this.#buffer;
      this.#buffer.copy(target, 0, this.#start, this.#end);
      this.#buffer = target;
      this.#end -= this.#start;
      this.#start = 0;
    }
    while (this.#end - this.#start < size) {
      const read = readSync(this.#fd, this.#buffer, this.#end, this.#buffer.length - this.#end, null);
      if (read === 0) return false;
      this.#end += read;
    }
    return true;
  }
}
