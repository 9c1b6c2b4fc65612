/**
 * Whether a history of calls on one object could have happened one call at a time, each at some moment between its
 * beginning and its end: the search of Wing and Gong, with the memory of what was tried (Lowe).
 */

/** What an object is: absent, or carrying a mark that no other write carries, at a version that a read may tell. */
export type Register =
  | { readonly type: 'absent' }
  | {
      readonly type: 'there'
      /** Unknown after going back, until a read tells. */
      readonly mark?: string
      /** Unknown after a write, until a read or a write that named it tells. */
      readonly version?: number
    }

export type Operation =
  | {
      readonly type: 'read'
      readonly found: { readonly mark: string; readonly version: number } | undefined
    }
  | { readonly type: 'create'; readonly mark: string }
  | { readonly type: 'write'; readonly mark: string; readonly version: number }
  /** Goes back to what was before. */
  | { readonly type: 'goBack'; readonly version: number }
  /** The cluster itself went back. */
  | { readonly type: 'become'; readonly mark: string }
  | { readonly type: 'remove' }

export interface Call {
  readonly operation: Operation
  readonly beganAt: number
  /** Infinity: nobody knows whether it happened, so it may still. */
  readonly endedAt: number
}

/** Steps of a search before it gives up. */
const stepsMax = 200_000

/** The register after one call, or undefined when the call could not have had its answer there. */
export function apply(state: Register, operation: Operation): Register | undefined {
  switch (operation.type) {
    case 'read':
      if (operation.found === undefined) return state.type === 'absent' ? state : undefined
      if (state.type === 'absent') return undefined
      if (state.mark !== undefined && state.mark !== operation.found.mark) return undefined
      if (state.version !== undefined && state.version !== operation.found.version) return undefined
      return { type: 'there', ...operation.found }
    case 'create':
      return state.type === 'absent' ? { type: 'there', mark: operation.mark } : undefined
    case 'write':
      if (state.type === 'absent') return undefined
      if (state.version !== undefined && state.version !== operation.version) return undefined
      return { type: 'there', mark: operation.mark }
    case 'goBack':
      if (state.type === 'absent') return undefined
      if (state.version !== undefined && state.version !== operation.version) return undefined
      return { type: 'there' }
    case 'become':
      return state.type === 'absent' ? undefined : { type: 'there', mark: operation.mark }
    case 'remove':
      return state.type === 'absent' ? undefined : { type: 'absent' }
  }
}

/** `undefined`: the search was given up. */
export function isLinearizable(history: readonly Call[]): boolean | undefined {
  const calls = [...history].sort((a, b) => a.beganAt - b.beganAt)
  const seen = new Set<string>()
  let steps = 0
  const isPossible = (state: Register, done: ReadonlySet<number>): boolean | undefined => {
    if (steps++ > stepsMax) return undefined
    let mustEndBy = Number.POSITIVE_INFINITY
    let firstOpen = -1
    for (const [at, call] of calls.entries()) {
      if (done.has(at)) continue
      if (firstOpen < 0) firstOpen = at
      mustEndBy = Math.min(mustEndBy, call.endedAt)
    }
    // What is left may never have happened.
    if (mustEndBy === Number.POSITIVE_INFINITY) return true
    const key = `${firstOpen}|${[...done]
      .filter((at) => at > firstOpen)
      .sort((a, b) => a - b)
      .join()}|${JSON.stringify(state)}`
    if (seen.has(key)) return false
    seen.add(key)
    let gaveUp = false
    for (let at = firstOpen; at < calls.length; at++) {
      const call = calls[at]
      if (!call || call.beganAt > mustEndBy) break
      if (done.has(at)) continue
      const next = apply(state, call.operation)
      if (next === undefined) continue
      const result = isPossible(next, new Set(done).add(at))
      if (result === true) return true
      if (result === undefined) gaveUp = true
    }
    return gaveUp ? undefined : false
  }
  return isPossible({ type: 'absent' }, new Set())
}
