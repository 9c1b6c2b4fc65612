import ipaddr from 'ipaddr.js'
import { UserError } from '../base/index.ts'
import type { ClusterNode } from './node.ts'
import type { Constraint, Placement, Platform } from './workload.ts'

/** The operators a constraint may have, in the order they are looked for. */
const operators = ['==', '!='] as const
const keyPattern = /^[a-z_][a-z0-9\-_.]+$/i
const valuePattern = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i

/**
 * Reads `node.labels.zone == a`. Blanks around key and value do not count.
 * Throws `invalidInput` with the texts of Docker Engine.
 */
export function parseConstraint(text: string): Constraint {
  for (const operator of operators) {
    const at = text.indexOf(operator)
    if (at < 0) continue
    const key = text.slice(0, at).trim()
    const value = text.slice(at + operator.length).trim()
    if (!keyPattern.test(key)) {
      throw new UserError('invalidInput', `key '${key}' is invalid`, {
        next: `Use a key such as node.role, node.hostname or node.labels.<name> in the constraint "${text}".`,
      })
    }
    if (!valuePattern.test(value)) {
      throw new UserError('invalidInput', `value '${value}' is invalid`, {
        next: `Give a value of letters, digits and : - _ . * ( ) ? + [ ] \\ ^ $ | / in the constraint "${text}".`,
      })
    }
    return { key, operator, value }
  }
  throw new UserError('invalidInput', 'constraint expected one operator from ==, !=', {
    next: `Write the constraint "${text}" as key==value or key!=value.`,
  })
}

/** As people write it, for messages: `node.role==manager`. */
export function formatConstraint({ key, operator, value }: Constraint): string {
  return `${key}${operator}${value}`
}

/** Whether the node meets all of them. An unknown key is met by no node. */
export function matchesConstraints(node: ClusterNode, constraints: readonly Constraint[]): boolean {
  return constraints.every((constraint) => matchesConstraint(node, constraint))
}

function matchesConstraint(node: ClusterNode, { key, operator, value }: Constraint): boolean {
  const lowered = key.toLowerCase()
  if (lowered === 'node.ip') return matchesAddress(node.status.address, operator, value)
  const actual = readKey(node, key, lowered)
  if (actual === undefined) return false
  return (actual.toLowerCase() === value.toLowerCase()) === (operator === '==')
}

/** What a key reads of a node; `undefined` when there is no such key. */
function readKey(node: ClusterNode, key: string, lowered: string): string | undefined {
  switch (lowered) {
    case 'node.id':
      return node.id
    case 'node.hostname':
      return node.description.hostname
    case 'node.role':
      return node.spec.role
    case 'node.platform.os':
      return node.description.platform.os
    case 'node.platform.arch':
      return node.description.platform.architecture
    default:
      return labelOf(node, key)
  }
}

/**
 * What `node.labels.<name>` or `engine.labels.<name>` reads of a node: empty when it has no such label, `undefined`
 * when the key is no label key. The label's name keeps its case, the prefix does not matter.
 */
export function labelOf(node: ClusterNode, key: string): string | undefined {
  const nodeLabel = withoutPrefix(key, 'node.labels.')
  if (nodeLabel !== undefined) return node.labels[nodeLabel] ?? ''
  const engineLabel = withoutPrefix(key, 'engine.labels.')
  if (engineLabel !== undefined) return node.description.engine.labels[engineLabel] ?? ''
  return undefined
}

function withoutPrefix(text: string, prefix: string): string | undefined {
  const matches = text.length > prefix.length && text.toLowerCase().startsWith(prefix)
  return matches ? text.slice(prefix.length) : undefined
}

/** `value` is an address or a CIDR block. What cannot be read matches no node, whatever the operator. */
function matchesAddress(address: string, operator: Constraint['operator'], value: string): boolean {
  if (!ipaddr.isValid(address)) return false
  const node = ipaddr.process(address)
  const range = value.includes('/')
    ? readOrUndefined(() => ipaddr.parseCIDR(value))
    : readOrUndefined((): [ipaddr.IPv4 | ipaddr.IPv6, number] => {
        const one = ipaddr.process(value)
        return [one, one.kind() === 'ipv4' ? 32 : 128]
      })
  if (range === undefined) return false
  const inside = node.kind() === range[0].kind() && node.match(range)
  return inside === (operator === '==')
}

function readOrUndefined<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    // The library reports what it cannot read by throwing; here that is an ordinary answer.
    return undefined
  }
}

/** Names people and engines give the same architecture. */
const architectureAliases: ReadonlyMap<string, string> = new Map([
  ['x86_64', 'amd64'],
  ['aarch64', 'arm64'],
])
const canonicalArchitecture = (name: string) => architectureAliases.get(name) ?? name

/** Whether a node of this platform runs what was built for any of `platforms`. None asked for: any node does. */
export function platformFits(node: ClusterNode, platforms: readonly Platform[]): boolean {
  if (platforms.length === 0) return true
  const own = node.description.platform
  if (own.os === '' && own.architecture === '') return false
  return platforms.some(
    ({ os, architecture }) =>
      (os === '' || os.toLowerCase() === own.os.toLowerCase()) &&
      (architecture === '' ||
        canonicalArchitecture(architecture.toLowerCase()) ===
          canonicalArchitecture(own.architecture.toLowerCase())),
  )
}

/** Whether a task with this placement may be on the node at all, whatever is free there. */
export function placementFits(node: ClusterNode, placement: Placement): boolean {
  return matchesConstraints(node, placement.constraints) && platformFits(node, placement.platforms)
}
