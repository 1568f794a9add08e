import type { SigningKey } from "./keys.ts";
import { Message } from "./wire.ts";
import { Wrong } from "./wrong.ts";

export type Header = {
  formatVersion: bigint;
  chainId: Buffer;
  firstSequence: bigint;
  previousHash: Buffer;
  keys: SigningKey[];
};

export type StoredRecord = { sequence: bigint; subject: string; data: Buffer; hash: Buffer };

export type SignedCheckpoint = {
  note: string;
  range: Buffer[];
  previousSize: bigint;
  keys: SigningKey[];
  frontier: Buffer[];
};

export type Mark = { sequence: bigint; offset: bigint };

export type End = {
  recordCount: bigint;
  lastSequence: bigint;
  lastHash: Buffer;
  checkpointCount: bigint;
  lastTermSequence: bigint;
  headerDigest: Buffer;
  digest: Buffer;
  marks: Mark[];
};

export type Content =
  | { kind: "header"; header: Header }
  | { kind: "record"; record: StoredRecord }
  | { kind: "checkpoint"; checkpoint: SignedCheckpoint }
  | { kind: "end"; end: End };

/** What a verifier reads of a `Record`, the payload of a message. */
export type Payload = { sequence: bigint; term: bigint; previousHash: Buffer; keyChanges: SigningKey[] };

export function parseEntry(body: Buffer): Content {
  const entry = new Message(body);
  const field = entry.whichOf([1, 2, 3, 4]);
  if (field === undefined) throw new Wrong("an entry is neither header, record, checkpoint nor end");
  // Of several the last one counts; the others have to parse as well.
  const contents = [1, 2, 3, 4].filter((each) => entry.all(each).length > 0).map((each) => [each, contentOf(entry, each)]);
  return new Map(contents as [number, Content][]).get(field)!;
}

function contentOf(entry: Message, field: number): Content {
  const message = entry.message(field);
  if (field === 1) return { kind: "header", header: header(message) };
  if (field === 2) return { kind: "record", record: record(message) };
  if (field === 3) return { kind: "checkpoint", checkpoint: checkpoint(message) };
  return { kind: "end", end: end(message) };
}

export function parsePayload(data: Buffer): Payload {
  const message = new Message(data);
  return {
    sequence: message.number(1),
    term: message.number(2),
    previousHash: message.bytes(5),
    keyChanges: message
      .messages(7)
      .filter((event) => event.all(13).length > 0)
      .map((event) => signingKey(event.message(13))),
  };
}

function header(message: Message): Header {
  return {
    formatVersion: message.number(1),
    chainId: message.bytes(2),
    firstSequence: message.number(3),
    previousHash: message.bytes(4),
    keys: message.messages(5).map(signingKey),
  };
}

function record(message: Message): StoredRecord {
  return {
    sequence: message.number(1),
    subject: message.string(2),
    data: message.bytes(3),
    hash: message.bytes(4),
  };
}

function checkpoint(message: Message): SignedCheckpoint {
  return {
    note: message.string(1),
    range: message.all(2),
    previousSize: message.number(3),
    keys: message.messages(4).map(signingKey),
    frontier: message.all(5),
  };
}

function signingKey(message: Message): SigningKey {
  return {
    keyId: message.string(1),
    publicKey: message.bytes(2),
    previousKeyId: message.string(3),
    endorsement: message.bytes(4),
  };
}

function end(message: Message): End {
  return {
    recordCount: message.number(1),
    lastSequence: message.number(2),
    lastHash: message.bytes(3),
    checkpointCount: message.number(4),
    lastTermSequence: message.number(5),
    headerDigest: message.bytes(6),
    digest: message.bytes(7),
    marks: message.messages(8).map((mark) => ({ sequence: mark.number(1), offset: mark.number(2) })),
  };
}
