import { sha256 } from "./hashes.ts";

const LEAF = Buffer.from([0]);
const NODE = Buffer.from([1]);

/**
 * The roots of the subtrees that cover the leaves [begin, end) of the tree, from the left: each subtree is complete, as
 * large as fits, and begins at a multiple of its size. Never more than two for each bit of `end`.
 */
export class CompactRange {
  #end: bigint;
  #subtrees: { level: number; root: Buffer }[] = [];

  constructor(begin: bigint) {
    this.#end = begin;
  }

  /** The range over [0, size) with this frontier, which has its root there. */
  static ofFrontier(frontier: Buffer[], size: bigint): CompactRange {
    const range = new CompactRange(size);
    const levels = [...size.toString(2)].flatMap((bit, i, bits) => (bit === "1" ? [bits.length - 1 - i] : []));
    range.#subtrees = frontier.map((root, i) => ({ level: levels[i]!, root }));
    return range;
  }

  push(recordHash: Buffer): void {
    let root = sha256(LEAF, recordHash);
    let level = 0;
    // A subtree with an odd index is the right half of a larger one; the left half is there unless it begins before us.
    for (let index = this.#end; index & 1n && this.#subtrees.at(-1)?.level === level; index >>= 1n) {
      root = nodeHash(this.#subtrees.pop()!.root, root);
      level++;
    }
    this.#subtrees.push({ level, root });
    this.#end++;
  }

  roots(): Buffer[] {
    return this.#subtrees.map((subtree) => subtree.root);
  }
}

/** The root of the tree over [0, size) that has this frontier; undefined if no tree of that size can have it. */
export function rootOf(frontier: Buffer[], size: bigint): Buffer | undefined {
  const subtrees = size.toString(2).replaceAll("0", "").length; // one for each 1 bit
  if (size === 0n || frontier.length !== subtrees || frontier.some((root) => root.length !== 32)) return undefined;
  return frontier.reduceRight((right, left) => nodeHash(left, right));
}

function nodeHash(left: Buffer, right: Buffer): Buffer {
  return sha256(NODE, left, right);
}
