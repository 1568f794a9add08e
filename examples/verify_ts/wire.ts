// Protobuf's wire format, as far as a log file needs it: numbers (wire type 0) and bytes (wire type 2).

export class Malformed extends Error {}

/** The fields of one message: for each number the values in order, numbers as bigint, the rest as bytes. */
export type Fields = Map<number, Array<bigint | Uint8Array>>;

/** A varint at `at`, and where it ends. */
function varint(data: Uint8Array, at: number): [bigint, number] {
  let value = 0n;
  for (let shift = 0n; shift < 70n; shift += 7n) {
    if (at >= data.length) throw new Malformed("a number is cut short");
    const byte = data[at++];
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return [BigInt.asUintN(64, value), at];
  }
  throw new Malformed("a number is too long");
}

/** Parses a message. Throws Malformed. */
export function parse(data: Uint8Array): Fields {
  const fields: Fields = new Map();
  let at = 0;
  while (at < data.length) {
    let key: bigint;
    [key, at] = varint(data, at);
    const number = Number(key >> 3n);
    const type = Number(key & 7n);
    if (number === 0 || number > 0x1fffffff) throw new Malformed("a field has an impossible number");
    let value: bigint | Uint8Array;
    if (type === 0) {
      [value, at] = varint(data, at);
    } else {
      let size: number;
      if (type === 2) {
        let length: bigint;
        [length, at] = varint(data, at);
        size = length > 0xffffffffn ? Infinity : Number(length);
      } else if (type === 1 || type === 5) {
        size = type === 1 ? 8 : 4;
      } else {
        throw new Malformed("a field has an unknown wire type");
      }
      if (at + size > data.length) throw new Malformed("a field is cut short");
      value = data.subarray(at, at + size);
      at += size;
    }
    const known = fields.get(number);
    if (known) known.push(value);
    else fields.set(number, [value]);
  }
  return fields;
}

/** A number field; 0 when it is missing. The last one counts. */
export function number(fields: Fields, name: number): number {
  const value = fields.get(name)?.at(-1);
  if (value === undefined) return 0;
  if (typeof value !== "bigint" || value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Malformed("no number");
  return Number(value);
}

/** A bytes or message field; empty when it is missing. The last one counts. */
export function bytes(fields: Fields, name: number): Uint8Array {
  const value = fields.get(name)?.at(-1);
  if (value === undefined) return new Uint8Array();
  if (typeof value === "bigint") throw new Malformed("no bytes");
  return value;
}

/** A string field: UTF-8, nothing else. */
export function text(fields: Fields, name: number): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes(fields, name));
  } catch {
    throw new Malformed("a string is not UTF-8");
  }
}

/** All values of a repeated bytes field. */
export function byteses(fields: Fields, name: number): Uint8Array[] {
  return (fields.get(name) ?? []).map((value) => {
    if (typeof value === "bigint") throw new Malformed("no bytes");
    return value;
  });
}

/** All values of a repeated message field. */
export function messages(fields: Fields, name: number): Fields[] {
  return (fields.get(name) ?? []).map((value) => {
    if (typeof value === "bigint") throw new Malformed("no message");
    return parse(value);
  });
}
