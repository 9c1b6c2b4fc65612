import { isTerminal, rankOf } from '../../model/index.ts'
import type { Checker } from '../judge.ts'

/** States only move forward, a task never changes its place, and none is forgotten while it may still run. */
export function forward(): Checker {
  return {
    name: 'states move forward',
    change({ before, after }, _commit, view) {
      if (before?.kind !== 'task') return undefined
      if (after?.kind !== 'task') {
        const isPlaced =
          before.nodeId !== undefined && rankOf(before.status.state) >= rankOf('assigned')
        const hasNode = before.nodeId !== undefined && view.get('node', before.nodeId)
        if (isPlaced && hasNode && !isTerminal(before.status.state))
          return `task ${before.id} was deleted while it was ${before.status.state}`
        return undefined
      }
      if (rankOf(after.status.state) < rankOf(before.status.state))
        return `task ${after.id} went from ${before.status.state} back to ${after.status.state}`
      if (rankOf(after.desiredState) < rankOf(before.desiredState))
        return `what is wanted of task ${after.id} went from ${before.desiredState} back to ${after.desiredState}`
      if (before.nodeId !== undefined && before.nodeId !== after.nodeId)
        return `task ${after.id} moved from node ${before.nodeId} to ${after.nodeId}`
      if (before.revisionId !== after.revisionId || before.slot !== after.slot)
        return `task ${after.id} became another revision's or slot's`
      if (
        isTerminal(after.status.state) &&
        after.traffic !== 'none' &&
        isTerminal(before.status.state)
      )
        return `task ${after.id} has ended and gets traffic`
      if (after.status.ready && after.status.state !== 'running')
        return `task ${after.id} is ready while ${after.status.state}`
      return undefined
    },
  }
}
