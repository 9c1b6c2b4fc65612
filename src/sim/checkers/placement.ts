import { type ClusterNode, holdsResources, type Revision, type Task } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { Checker } from '../judge.ts'
import type { Past } from '../past.ts'

/** Constraints, availability, reservations and limits hold when a task is placed, as far as the leader knew. */
export function placement(past: Past): Checker {
  return {
    name: 'placements are allowed',
    change({ before, after }, _commit, view) {
      if (after?.kind !== 'task' || after.nodeId === undefined) return undefined
      if (before?.kind === 'task' && before.nodeId !== undefined) return undefined
      const node = view.get('node', after.nodeId)
      if (!node) return undefined
      const refusal = refusalIn(view, after) && refusalIn(past.whenDecided([after]) ?? view, after)
      return refusal === undefined
        ? overCommitted(node, view)
        : `task ${after.id} was placed on ${node.name}, but ${refusal}`
    },
  }
}

function refusalIn(view: View, task: Task): string | undefined {
  const node = task.nodeId && view.get('node', task.nodeId)
  if (!node) return 'the node is not there'
  if (task.pinnedNodeId !== undefined && task.pinnedNodeId !== node.id)
    return `it belongs on node ${task.pinnedNodeId}`
  if (node.status.state !== 'ready') return `the node is ${node.status.state}`
  if (node.spec.availability !== 'active')
    return `the node's availability is ${node.spec.availability}`
  // A task that waits follows the placement that is wanted now.
  const wanted = view.get('workload', task.workloadId)?.spec.revisionId
  const own = refusalBy(view.get('revision', task.revisionId), node, task, view)
  return own && wanted ? refusalBy(view.get('revision', wanted), node, task, view) && own : own
}

function refusalBy(
  revision: Revision | undefined,
  node: ClusterNode,
  task: Task,
  view: View,
): string | undefined {
  if (!revision) return undefined
  for (const constraint of revision.template.placement.constraints) {
    const { key, operator, value } = constraint
    const isEqual = readOf(node, key) === value
    if (isEqual !== (operator === '==')) return `${key} ${operator} ${value} does not hold there`
  }
  const { maxReplicasPerNode } = revision.template.placement
  if (maxReplicasPerNode === 0 || task.slot === undefined) return undefined
  const beside = view
    .tasksOfNode(node.id)
    .filter((other) => other.workloadId === task.workloadId && isWantedThere(other))
  return beside.length > maxReplicasPerNode
    ? `${beside.length} of its service are there, and ${maxReplicasPerNode} is the most`
    : undefined
}

/** What a constraint that people draw reads of a node, told without the code that is judged. */
function readOf(node: ClusterNode, key: string): string | undefined {
  if (key === 'node.role') return node.spec.role
  if (key === 'node.hostname') return node.description.hostname
  const [, label] = /^node\.labels\.(.+)$/.exec(key) ?? []
  return label === undefined ? undefined : (node.labels[label] ?? '')
}

function isWantedThere({ status, desiredState }: Task): boolean {
  return (
    desiredState !== 'shutdown' &&
    desiredState !== 'remove' &&
    !['complete', 'shutdown', 'failed', 'rejected', 'remove', 'orphaned'].includes(status.state)
  )
}

function overCommitted(node: ClusterNode, view: View): string | undefined {
  let nanoCpus = 0
  let memoryBytes = 0
  const generic = new Map<string, number>()
  for (const task of view.tasksOfNode(node.id)) {
    if (!holdsResources(task)) continue
    const reserved = view.get('revision', task.revisionId)?.template.reservations
    nanoCpus += reserved?.nanoCpus ?? 0
    memoryBytes += reserved?.memoryBytes ?? 0
    for (const { kind, value } of task.genericResources)
      generic.set(kind, (generic.get(kind) ?? 0) + value)
  }
  const { resources } = node.description
  if (nanoCpus > resources.nanoCpus)
    return `${node.name} has ${resources.nanoCpus / 1e9} CPUs and ${nanoCpus / 1e9} are reserved`
  if (memoryBytes > resources.memoryBytes)
    return `${node.name} has ${resources.memoryBytes} bytes of memory and ${memoryBytes} are reserved`
  for (const [kind, value] of generic) {
    const own = resources.generic.find((one) => one.kind === kind)?.value ?? 0
    if (value > own) return `${node.name} has ${own} ${kind} and ${value} are reserved`
  }
  return undefined
}
