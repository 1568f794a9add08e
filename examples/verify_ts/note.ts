import { isSignedBy, sha256 } from "./hashes.ts";
import { check } from "./wrong.ts";

const NUMBER = "([1-9][0-9]{0,18})";
const HASH = "([0-9a-f]{64})";
const FORM = new RegExp(
  `^hivefold/log/${HASH}\n${NUMBER}\n([A-Za-z0-9+/]{43}=)\nterm ${NUMBER}\nhead ${HASH}\n` +
    `\n\u2014 hivefold/log/\\1 ([A-Za-z0-9+/]{91}=)\n$`,
);

/** The signed text of a checkpoint, taken apart. */
export type Note = {
  chainId: string;
  size: bigint;
  root: Buffer;
  term: bigint;
  head: string;
  signed: Buffer;
  keyHash: Buffer;
  signature: Buffer;
};

export function parseNote(text: string): Note {
  const match = FORM.exec(text);
  check(match !== null, "a checkpoint's note does not have the form of one");
  const [, chainId, size, root, term, head, signature] = match as unknown as string[];
  const keyHashAndSignature = base64(signature!);
  return {
    chainId: chainId!,
    size: BigInt(size!),
    root: base64(root!),
    term: BigInt(term!),
    head: head!,
    signed: Buffer.from(text.slice(0, text.indexOf("\n\n") + 1)),
    keyHash: keyHashAndSignature.subarray(0, 4),
    signature: keyHashAndSignature.subarray(4),
  };
}

export function isNoteSignedBy(note: Note, publicKey: Buffer | undefined): boolean {
  if (publicKey?.length !== 32) return false;
  const keyHash = sha256(`hivefold/log/${note.chainId}\n\u0001`, publicKey).subarray(0, 4);
  return note.keyHash.equals(keyHash) && isSignedBy(publicKey, note.signed, note.signature);
}

/** Node decodes base64 with bits to spare in its last digit; only one spelling of the bytes is the right one. */
function base64(text: string): Buffer {
  const bytes = Buffer.from(text, "base64");
  check(bytes.toString("base64") === text, "a checkpoint's note has base64 in another form than the shortest");
  return bytes;
}
