import { textAt } from '../support/look.ts'
import type { LabHost } from './host.ts'
import type { Lab } from './open-lab.ts'

/** Nodes that managers call down, as their daemons' logs tell. */
export class DownWatch {
  readonly #lab: Lab
  readonly #readTo = new Map<LabHost, number>()

  /** Begins now. */
  constructor(lab: Lab) {
    this.#lab = lab
    this.take()
  }

  /** Ids of the nodes that were called down since the last time, and why. */
  take(): readonly { readonly nodeId: string; readonly why: string }[] {
    return this.#lab.hosts.flatMap((host) => {
      const log = host.log('daemon')
      const fresh = log.slice(this.#readTo.get(host) ?? 0)
      this.#readTo.set(host, log.length)
      return fresh.split('\n').flatMap((line) => {
        if (!line.includes('"a node is down"')) return []
        const entry: unknown = JSON.parse(line)
        return [{ nodeId: textAt(entry, 'nodeId'), why: textAt(entry, 'why') }]
      })
    })
  }
}
