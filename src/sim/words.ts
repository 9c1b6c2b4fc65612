import type { AnyObject, Task } from '../model/index.ts'
import type { AppliedChange, View } from '../store/store.ts'

/** One change of the durable state for a person who reads what led to a failure. */
export function changeInWords({ kind, id, before, after }: AppliedChange, view: View): string {
  if (after?.kind === 'task')
    return taskInWords(before?.kind === 'task' ? before : undefined, after, view)
  if (!after) return `${nameOf(before, kind, id)} is gone`
  if (!before) return `${nameOf(after, kind, id)} is new${detailsOf(after)}`
  return `${nameOf(after, kind, id)} changed${detailsOf(after)}`
}

function nameOf(object: AnyObject | undefined, kind: string, id: string): string {
  const word = kind === 'workload' ? 'service' : kind
  return object && object.name !== '' ? `${word} ${object.name}` : `${word} ${id.slice(0, 6)}`
}

function detailsOf(object: AnyObject): string {
  switch (object.kind) {
    case 'node': {
      const { role, availability } = object.spec
      return `: ${object.status.state}, ${availability}, ${role}${labelsOf(object)}`
    }
    case 'workload': {
      const { mode } = object.spec
      const count =
        mode.type === 'replicated'
          ? ` x${mode.replicas}`
          : mode.type === 'replicatedJob'
            ? ` ${mode.maxConcurrent} at once, ${mode.totalCompletions} in all`
            : ''
      const { update } = object.status
      return `: ${mode.type}${count}, revision ${object.spec.revisionId.slice(0, 6)}${labelsOf(object)}${update ? `, ${update.state}: ${update.waitingFor ?? update.message}` : ''}`
    }
    case 'revision':
      return ` (${object.id.slice(0, 6)}, image ${object.template.containers[0]?.image ?? ''})${object.healthyAtMs === undefined ? '' : ', proved healthy'}`
    case 'endpoint': {
      const ports = object.status.ports.map(
        ({ publishedPort, publishMode }) => `${publishMode} ${publishedPort}`,
      )
      const vips = object.status.vips.map(({ address }) => address)
      return `: ${[...vips, ...ports].join(', ') || 'nothing yet'}${object.status.error ? `, ${object.status.error}` : ''}`
    }
    case 'network':
      return `: ${object.status.subnet ?? object.status.error ?? 'no subnet yet'}`
    case 'task':
    case 'cluster':
    case 'secret':
    case 'config':
      return ''
  }
}

function labelsOf({ labels }: AnyObject): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
  return pairs.length === 0 ? '' : ` [${pairs.join(' ')}]`
}

function taskInWords(before: Task | undefined, after: Task, view: View): string {
  const service = view.get('workload', after.workloadId)?.name ?? after.workloadId.slice(0, 6)
  const node = after.nodeId && (view.get('node', after.nodeId)?.name ?? after.nodeId.slice(0, 6))
  const pinned = after.pinnedNodeId && (view.get('node', after.pinnedNodeId)?.name ?? '')
  const name = `task ${service}.${after.slot ?? pinned ?? ''} (${after.id.slice(0, 6)}${node ? ` on ${node}` : ''})`
  const parts: string[] = []
  const { status } = after
  if (!before)
    parts.push(
      `new, of revision ${after.revisionId.slice(0, 6)}, wants ${after.desiredState}${after.desiredBecause ? `: ${after.desiredBecause}` : ''}`,
    )
  if (before && before.desiredState !== after.desiredState)
    parts.push(
      `is to be ${after.desiredState}${after.desiredBecause ? `: ${after.desiredBecause}` : ''}`,
    )
  if (before?.status.state !== status.state) parts.push(status.state)
  if (before && before.status.ready !== status.ready)
    parts.push(status.ready ? 'ready' : 'not ready')
  if (before && before.traffic !== after.traffic) parts.push(`traffic ${after.traffic}`)
  if (status.error !== undefined && before?.status.error !== status.error) parts.push(status.error)
  if (before && before.addresses.length === 0 && after.addresses.length > 0)
    parts.push(after.addresses.map(({ address }) => address).join(' '))
  if (parts.length === 0) parts.push(status.message)
  return `${name} ${parts.join(', ')}`
}
