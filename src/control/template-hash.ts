import { createHash } from 'node:crypto'
import type { EndpointSpec, TaskTemplate } from '../model/index.ts'

/**
 * Hash of all that makes a running task out of date when it differs. Where it may run is left out: a task that already
 * runs where the new placement allows it stays, and the others are moved because of their node, not of their template.
 */
export function templateHash(
  template: TaskTemplate,
  endpoint: Pick<EndpointSpec, 'mode' | 'ports'>,
): string {
  const { placement: _where, ...what } = template
  return createHash('sha256')
    .update(stableJson([what, endpoint.mode, endpoint.ports]))
    .digest('hex')
    .slice(0, 32)
}

/** JSON with keys in order and absent fields left out, so that equal values have equal text. */
export function stableJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(stableJson).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const entries = Object.entries(value)
    .filter(([, entry]) => entry !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, entry]) => `${JSON.stringify(key)}:${stableJson(entry)}`).join(',')}}`
}

/** The value without its empty parts: what two documents must share to mean the same. */
export function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? undefined : value.map(withoutEmpty)
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value)
      .map(([key, entry]) => [key, withoutEmpty(entry)] as const)
      .filter(([, entry]) => entry !== undefined)
    return entries.length === 0 ? undefined : Object.fromEntries(entries)
  }
  return value === '' || value === 0 || value === false || value === null ? undefined : value
}
