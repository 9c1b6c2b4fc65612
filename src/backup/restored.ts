import { UserError, unreachable } from '../base/index.ts'
import {
  type AnyObject,
  type ClusterNode,
  isTerminal,
  type NodeId,
  orphanedTask,
  type Task,
} from '../model/index.ts'
import type { BackupContents } from './contents.ts'

export interface RestorePlace {
  /** Id that this node takes. */
  readonly nodeId: NodeId
  /** `192.168.1.5:2377` */
  readonly address: string
  readonly hostname: string
  readonly nowMs: number
}

/**
 * The state of a backup as a new cluster of one manager begins with it, on whatever machine. Pure.
 *
 * This node takes the place of the manager that made the backup, with its labels, under a new id: that machine may still
 * live. Its tasks are given up, so that they are made anew. All other nodes are workers that are down; they join again or
 * are removed. What a service says of lost nodes decides about their tasks.
 */
export function decideRestored(
  { head, objects }: BackupContents,
  place: RestorePlace,
): readonly AnyObject[] {
  const lost = objects.find(({ kind, id }) => kind === 'node' && id === head.nodeId)
  if (lost?.kind !== 'node') {
    throw new UserError('invalidInput', 'the backup does not hold the manager that made it')
  }
  return objects.map((object) => {
    switch (object.kind) {
      case 'node':
        return object === lost ? successorOf(lost, place) : left(object, place.nowMs)
      case 'task':
        return object.nodeId === lost.id ? givenUp(object, place.nowMs) : object
      case 'network': {
        const { attachments, ...status } = object.status
        const kept = attachments?.filter(({ nodeId }) => nodeId !== lost.id)
        return kept?.length
          ? { ...object, status: { ...status, attachments: kept } }
          : { ...object, status }
      }
      case 'cluster':
      case 'workload':
      case 'revision':
      case 'endpoint':
      case 'secret':
      case 'config':
        return object
      default:
        return unreachable(object)
    }
  })
}

function successorOf(lost: ClusterNode, place: RestorePlace): ClusterNode {
  const { nodeId, address, hostname, nowMs } = place
  return {
    ...lost,
    id: nodeId,
    name: hostname,
    createdAtMs: nowMs,
    spec: { ...lost.spec, role: 'manager', availability: 'active' },
    description: { ...lost.description, hostname, hostSubnets: [] },
    status: {
      state: 'unknown',
      message: 'restored from a backup',
      sinceMs: nowMs,
      address: address.replace(/:\d+$/, ''),
    },
    manager: { address, leader: true, reachability: 'reachable' },
  }
}

function left(lost: ClusterNode, nowMs: number): ClusterNode {
  const { manager: _, ...node } = lost
  return {
    ...node,
    spec: { ...node.spec, role: 'worker' },
    status: {
      ...node.status,
      state: 'down',
      sinceMs: nowMs,
      message: 'not seen since the cluster was restored from a backup',
    },
  }
}

function givenUp(task: Task, nowMs: number): Task {
  if (isTerminal(task.status.state)) return task
  return orphanedTask(task, 'the cluster was restored from a backup, without its node', nowMs)
}
