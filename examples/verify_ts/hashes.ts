// The hashes of docs/log-format.md: of a record, of the tree, of keys; and signatures.

import { createHash, createPublicKey, verify } from "node:crypto";

export const ZEROS = new Uint8Array(32);

/** Whether two byte strings are equal. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

export function hex(data: Uint8Array): string {
  return Buffer.from(data).toString("hex");
}

function sha256(...parts: Uint8Array[]): Uint8Array {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const RECORD = Buffer.from("hivefold-record-v1\0");

/** hash(sequence): over the record's number, subject and payload as stored. */
export function recordHash(sequence: number, subject: Uint8Array, data: Uint8Array): Uint8Array {
  const lengths = Buffer.alloc(14);
  lengths.writeBigUInt64BE(BigInt(sequence), 0);
  lengths.writeUInt16BE(subject.length, 8);
  lengths.writeUInt32BE(data.length, 10);
  return sha256(RECORD, lengths, subject, data);
}

/** The roots of the fewest perfect subtrees over some leaves: as many hashes as it takes, in order. */
export class Range {
  readonly begin: number;
  readonly hashes: Uint8Array[] = [];
  private end: number;

  constructor(begin: number) {
    this.begin = this.end = begin;
  }

  add(leaf: Uint8Array): void {
    this.hashes.push(sha256(Uint8Array.of(0), leaf));
    let start = this.end++;
    for (let width = 1; Math.floor(start / width) % 2 === 1 && start - width >= this.begin; width *= 2) {
      start -= width;
      const right = this.hashes.pop()!;
      this.hashes.push(sha256(Uint8Array.of(1), this.hashes.pop()!, right));
    }
  }
}

/** The root of the tree whose subtrees have these roots. */
export function rootOf(hashes: Uint8Array[]): Uint8Array {
  let root = hashes.at(-1) ?? sha256();
  for (let i = hashes.length - 2; i >= 0; i--) root = sha256(Uint8Array.of(1), hashes[i], root);
  return root;
}

/** A signing key as the log names it. */
export interface Key {
  id: string;
  raw: Uint8Array;
  previousId: string;
  endorsement: Uint8Array;
}

/** Whether the key is called what it is: by the first half of its SHA-256. */
export function isNamedRightly(key: Key): boolean {
  return key.raw.length === 32 && key.id === hex(sha256(key.raw).subarray(0, 16));
}

/** Whether `previous` handed over to `key` in the log with this chain id. */
export function follows(key: Key, previous: Key, chainId: Uint8Array): boolean {
  const said = Buffer.concat([Buffer.from("hivefold-endorsement-v1\0"), chainId, previous.raw, key.raw]);
  return key.previousId === previous.id && isSignedBy(previous, key.endorsement, said);
}

/** Which key signed a note, in four bytes. */
export function keyHash(origin: string, key: Key): Uint8Array {
  return sha256(Buffer.from(`${origin}\n`), Uint8Array.of(1), key.raw).subarray(0, 4);
}

const SPKI = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410: an Ed25519 public key follows

/** Whether `signature` over `message` is that of the key's owner. */
export function isSignedBy(key: Key, signature: Uint8Array, message: Uint8Array): boolean {
  if (signature.length !== 64) return false;
  const publicKey = createPublicKey({ key: Buffer.concat([SPKI, key.raw]), format: "der", type: "spki" });
  return verify(null, message, publicKey, signature);
}
