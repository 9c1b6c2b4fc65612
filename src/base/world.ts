/**
 * All that differs between production, a test and the simulator. Nothing above `base/` may read the
 * time, draw a number or wait by any other way.
 */

/** Time. `nowMs` is milliseconds since the epoch and never goes back. */
export interface Clock {
  nowMs(): number
  /** Resolves after `ms`, or at once when `signal` aborts (it never rejects). */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** What was written down by somebody else happened at `ms`: it is no earlier now. Absent where time has one source. */
  notBefore?(ms: number): void
}

/** Chance. */
export interface Random {
  /** A whole number from 0 up to, not including, `limit`. */
  below(limit: number): number
}

/** Log lines: a constant message plus fields. Secrets never go in. */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void
  info(message: string, fields?: Record<string, unknown>): void
  warn(message: string, fields?: Record<string, unknown>): void
  error(message: string, fields?: Record<string, unknown>): void
}

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} }
