import { formatConstraint } from '../model/placement.ts'
import type { Needs } from './needs.ts'
import { reasonCode } from './node-state.ts'

/**
 * Why no node fits, in one sentence: Swarm's words with the count of nodes for each reason, most frequent first, and
 * after a colon what exactly was asked for. `refused` counts nodes by reason code.
 */
export function explainRefusal(
  needs: Needs,
  refused: readonly number[],
  maxReplicas: number,
): string {
  const parts = reasonParts(needs, refused, maxReplicas)
  if (parts.length === 0) return 'no suitable node (there are no nodes)'
  return `no suitable node (${parts.join('; ')})`
}

/** The same for the one node that a task is bound to. */
export function explainPinned(needs: Needs, reason: number): string {
  const refused: number[] = []
  refused[reason] = 1
  return reasonParts(needs, refused, 0).join('; ')
}

function reasonParts(
  needs: Needs,
  refused: readonly number[],
  maxReplicas: number,
): readonly string[] {
  const count = (reason: keyof typeof reasonCode) => refused[reasonCode[reason]] ?? 0
  const short: (readonly [number, string])[] = [
    [count('nanoCpus'), 'CPU'],
    [count('memory'), 'memory'],
    [count('generic'), needs.generic.map(({ kind }) => kind).join(' or ')],
  ]
  const lacking = short.filter(([nodes]) => nodes > 0).sort(([a], [b]) => b - a)
  const lackingNodes = lacking.reduce((sum, [nodes]) => sum + nodes, 0)
  const lackingWhat =
    lacking.length === 1
      ? (lacking[0]?.[1] ?? '')
      : lacking.map(([nodes, what]) => `${what} on ${counted(nodes)}`).join(', ')
  const plugins = needs.plugins.map(({ type, name }) => `${type.toLowerCase()} ${name}`)
  const platforms = needs.platforms.map(({ os, architecture }) =>
    [os, architecture].filter((part) => part !== '').join('/'),
  )
  const parts: (readonly [number, string, string])[] = [
    [count('notReady'), `${counted(count('notReady'))} not available for new tasks`, ''],
    [lackingNodes, `insufficient resources on ${counted(lackingNodes)}`, lackingWhat],
    [count('plugin'), `missing plugin on ${counted(count('plugin'))}`, plugins.join(', ')],
    [
      count('constraint'),
      `scheduling constraints not satisfied on ${counted(count('constraint'))}`,
      needs.constraints.map(formatConstraint).join(', '),
    ],
    [
      count('platform'),
      `unsupported platform on ${counted(count('platform'))}`,
      platforms.join(', '),
    ],
    [
      count('hostPort'),
      `host-mode port already in use on ${counted(count('hostPort'))}`,
      needs.hostPorts.join(', '),
    ],
    [
      count('maxReplicas'),
      'max replicas per node limit exceed',
      `${maxReplicas} on ${counted(count('maxReplicas'))}`,
    ],
  ]
  return parts
    .filter(([nodes]) => nodes > 0)
    .sort(([a], [b]) => b - a)
    .map(([, text, detail]) => (detail === '' ? text : `${text}: ${detail}`))
}

function counted(nodes: number): string {
  return nodes === 1 ? '1 node' : `${nodes} nodes`
}
