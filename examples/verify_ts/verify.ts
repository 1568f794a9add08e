import { closeSync, openSync } from "node:fs";
import { type Summary, verifyLogFile } from "./log_file.ts";
import { Wrong } from "./wrong.ts";

const VALID = 0;
const NOT_IN_ORDER = 1;
const UNREADABLE = 2;

process.exitCode = main(process.argv.slice(2));

function main(paths: string[]): number {
  if (paths.length === 0) {
    console.error("usage: node verify.ts FILE...");
    return UNREADABLE;
  }
  return Math.max(...paths.map(report));
}

/** Prints what there is to say about one file; returns the exit code that is due to it. */
function report(path: string): number {
  try {
    const summary = verify(path);
    console.log(toJson({ file: path, valid: true, ...summary }));
    return VALID;
  } catch (error) {
    if (error instanceof Wrong) {
      console.log(toJson({ file: path, valid: false, position: error.position, message: error.message }));
      return NOT_IN_ORDER;
    }
    if (error instanceof Error && "syscall" in error) {
      console.error(`${path}: ${error.message}`);
      return UNREADABLE;
    }
    throw error;
  }
}

function verify(path: string): Summary {
  const fd = openSync(path, "r");
  try {
    return verifyLogFile(fd);
  } finally {
    closeSync(fd);
  }
}

/** JSON numbers are doubles to most readers; no log comes near 2^53 records. */
function toJson(value: object): string {
  return JSON.stringify(value, (_, part) => (typeof part === "bigint" ? Number(part) : part));
}
