/** Stops on a broken invariant instead of spreading it. `why` says what had to hold. */
export function assert(ok: boolean, why: string): asserts ok {
  if (!ok) throw new Error(`broken invariant: ${why}`)
}

/** The `default` of a switch that covers every case: does not compile until it does. */
export function unreachable(value: never): never {
  throw new Error(`broken invariant: unexpected ${JSON.stringify(value)}`)
}
