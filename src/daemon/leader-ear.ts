import type { ManagerWord } from '../cluster/index.ts'
import type { Predecessor } from '../dispatcher/index.ts'
import type { NodeId } from '../model/index.ts'

/** What a manager hears of the one that leads, by its own node's session with it. */
export class LeaderEar {
  /** `atMs`: when it spoke last, or said or showed that it ends. */
  #last: (ManagerWord & { readonly atMs: number }) | undefined

  hear(word: ManagerWord, nowMs: number): void {
    const isAbsence = word.type === 'silent' || word.type === 'quiet'
    const isNews = !isAbsence || this.#last?.address !== word.address
    this.#last = isNews ? { ...word, atMs: nowMs } : { ...word, atMs: this.#last?.atMs ?? nowMs }
  }

  /** A leader before, for the one after it that has listened to it: how long it has been away, and how it went. */
  predecessor(nodeId: NodeId, address: string, nowMs: number): Predecessor | undefined {
    const last = this.#last
    if (last?.address !== address) return undefined
    const end = last.type === 'ended' || last.type === 'stopping' ? last.type : 'silent'
    return { nodeId, sinceMs: nowMs - last.atMs, end }
  }
}
