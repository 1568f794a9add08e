import { check, Wrong } from "./wrong.ts";

// A byte order mark is a character of the string like any other.
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The fields of one message in protobuf's wire format. All numbers are unsigned: the log has no others that matter here.
 * A field with another wire type than the one asked for counts as unknown, as it does in protobuf.
 */
export class Message {
  // In the order of the last occurrence of each field: of a oneof, the last one on the wire is set.
  #fields = new Map<number, (bigint | Buffer)[]>();
  #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    while (this.#at < bytes.length) this.#readField();
  }

  number(field: number): bigint {
    const values = this.#fields.get(field) ?? [];
    return values.findLast((value) => typeof value === "bigint") ?? 0n;
  }

  bytes(field: number): Buffer {
    return this.all(field).at(-1) ?? Buffer.alloc(0);
  }

  string(field: number): string {
    try {
      return UTF8.decode(this.bytes(field));
    } catch {
      throw new Wrong("a string is not UTF-8");
    }
  }

  all(field: number): Buffer[] {
    const values = this.#fields.get(field) ?? [];
    return values.filter((value) => typeof value !== "bigint");
  }

  messages(field: number): Message[] {
    return this.all(field).map((bytes) => new Message(bytes));
  }

  /** A message that occurs twice where it may once is merged, which is what joining the bytes amounts to. */
  message(field: number): Message {
    return new Message(Buffer.concat(this.all(field)));
  }

  /** Which of these fields, each of wire type 2, is set; the last on the wire if several are. */
  whichOf(fields: number[]): number | undefined {
    return [...this.#fields.keys()].findLast((field) => fields.includes(field) && this.all(field).length > 0);
  }

  #readField(): void {
    const tag = this.#varint();
    const field = Number(tag >> 3n);
    const type = Number(tag & 7n);
    check(field >= 1 && field < 2 ** 29, "a field has a number that protobuf does not have");
    if (type === 0) this.#add(field, this.#varint());
    else if (type === 1) this.#next(8);
    else if (type === 2) this.#add(field, this.#next(Number(this.#varint())));
    else if (type === 5) this.#next(4);
    else throw new Wrong(`a field has wire type ${type}`);
  }

  #add(field: number, value: bigint | Buffer): void {
    const values = this.#fields.get(field) ?? [];
    values.push(value);
    this.#fields.delete(field);
    this.#fields.set(field, values);
  }

  #next(size: number): Buffer {
    check(this.#at + size <= this.#bytes.length, "a message ends within a field");
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  #varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#next(1)[0]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new Wrong("a number has more than 10 bytes");
  }
}
