import { createHash, createPublicKey, verify } from "node:crypto";

const RECORD_DOMAIN = "hivefold-record-v1\0";

// What stands before the 32 bytes of an Ed25519 key in the form that node reads (SubjectPublicKeyInfo, RFC 8410).
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

export function sha256(...parts: (Buffer | string)[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export function recordHash(sequence: bigint, subject: Buffer, data: Buffer): Buffer {
  const lengths = Buffer.alloc(14);
  lengths.writeBigUInt64BE(sequence, 0);
  lengths.writeUInt16BE(subject.length, 8);
  lengths.writeUInt32BE(data.length, 10);
  return sha256(RECORD_DOMAIN, lengths, subject, data);
}

export function isSignedBy(publicKey: Buffer, message: Buffer, signature: Buffer): boolean {
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: "der", type: "spki" });
  return verify(null, message, key, signature);
}
