import type { Mark } from "./messages.ts";

const FIRST_INTERVAL = 1024n;
const MAX_MARKS = 4096;

/** Where some records begin: ever fewer of them, so that there are never more than MAX_MARKS. */
export class Marks {
  #marks: Mark[] = [];
  #interval = FIRST_INTERVAL;

  /** `index` counts the records of the file from 0. */
  add(index: bigint, mark: Mark): void {
    if (index % this.#interval !== 0n) return;
    this.#marks.push(mark);
    if (this.#marks.length <= MAX_MARKS) return;
    this.#marks = this.#marks.filter((_, i) => i % 2 === 0);
    this.#interval *= 2n;
  }

  equal(others: Mark[]): boolean {
    return (
      others.length === this.#marks.length &&
      this.#marks.every(({ sequence, offset }, i) => others[i]!.sequence === sequence && others[i]!.offset === offset)
    );
  }
}
