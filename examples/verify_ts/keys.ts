import { isSignedBy, sha256 } from "./hashes.ts";
import { check } from "./wrong.ts";

const ENDORSEMENT_DOMAIN = Buffer.from("hivefold-endorsement-v1\0");
const KEYS_IN_CHECKPOINT = 8;

export type SigningKey = { keyId: string; publicKey: Buffer; previousKeyId: string; endorsement: Buffer };

/** Checks that each key but the first, which is taken on trust, follows the one before it. */
export function checkKeys(keys: SigningKey[], chainId: Buffer): void {
  keys.forEach((key, i) => {
    checkKeyId(key);
    check(i === 0 || follows(key, keys[i - 1]!, chainId), `key ${key.keyId} is not endorsed by the key before it`);
  });
}

/** Which key signs, as the records tell it one by one. */
export class KeyHistory {
  #chainId: Buffer;
  // Oldest first; the latest are all that is needed, so no more are kept once it is known which they are.
  #keys: SigningKey[];
  // Whether there may be keys before the first of #keys that neither the header nor a checkpoint has named.
  #incomplete: boolean;

  constructor(chainId: Buffer, headerKeys: SigningKey[], fromFirstRecord: boolean) {
    this.#chainId = chainId;
    this.#keys = fromFirstRecord ? [] : headerKeys.slice(-KEYS_IN_CHECKPOINT);
    this.#incomplete = !fromFirstRecord && headerKeys.length === 0;
  }

  change(key: SigningKey): void {
    checkKeyId(key);
    const last = this.#keys.at(-1);
    const onTrust = last === undefined && this.#incomplete; // nothing tells which key it follows
    const inOrder = last === undefined ? isFirst(key) : follows(key, last, this.#chainId);
    check(onTrust || inOrder, `key ${key.keyId} does not follow the key that signed until then`);
    this.#keys = [...this.#keys, key].slice(-KEYS_IN_CHECKPOINT);
  }

  /** Checks the keys that a checkpoint names; returns the one that must have signed it. */
  signerOf(named: SigningKey[]): SigningKey {
    const signer = named.at(-1);
    check(signer !== undefined, "a checkpoint names no key");
    if (this.#incomplete) this.#learn(named);
    check(sameKeys(named, this.#keys), "a checkpoint does not name the latest keys of the log");
    return signer;
  }

  #learn(named: SigningKey[]): void {
    checkKeys(named, this.#chainId);
    check(named.length <= KEYS_IN_CHECKPOINT, "a checkpoint names too many keys");
    const known = this.#keys; // from the records before the checkpoint
    check(known.length === 0 || sameKeys(named.slice(-known.length), known), "a checkpoint names other keys than the log");
    this.#keys = named;
    this.#incomplete = false;
  }
}

function checkKeyId(key: SigningKey): void {
  check(key.publicKey.length === 32, `key ${key.keyId} does not have 32 bytes`);
  check(key.keyId === sha256(key.publicKey).toString("hex", 0, 16), `key ${key.keyId} has the key_id of another`);
}

function isFirst(key: SigningKey): boolean {
  return key.previousKeyId === "" && key.endorsement.length === 0;
}

function follows(key: SigningKey, before: SigningKey, chainId: Buffer): boolean {
  const endorsed = Buffer.concat([ENDORSEMENT_DOMAIN, chainId, before.publicKey, key.publicKey]);
  return key.previousKeyId === before.keyId && isSignedBy(before.publicKey, endorsed, key.endorsement);
}

function same(a: SigningKey, b: SigningKey): boolean {
  return (
    a.keyId === b.keyId &&
    a.publicKey.equals(b.publicKey) &&
    a.previousKeyId === b.previousKeyId &&
    a.endorsement.equals(b.endorsement)
  );
}

function sameKeys(a: SigningKey[], b: SigningKey[]): boolean {
  return a.length === b.length && a.every((key, i) => same(key, b[i]!));
}
