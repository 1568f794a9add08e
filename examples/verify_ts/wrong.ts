/** Something in the file is not as it must be. Who throws it may leave the position to the caller (see `at`). */
export class Wrong extends Error {
  position: bigint | undefined;

  constructor(message: string, position?: bigint) {
    super(message);
    this.position = position;
  }
}

export function check(condition: boolean, message: string, position?: bigint): asserts condition {
  if (!condition) throw new Wrong(message, position);
}

/** Runs one step; what is wrong in it is at this position, unless it says otherwise itself. */
export function at<T>(position: bigint, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof Wrong) error.position ??= position;
    throw error;
  }
}
