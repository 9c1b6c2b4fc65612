import { readFileSync } from 'node:fs'
import { type Client, type ResolverState, stateVersion, type Zone } from './zones.ts'

/** Reads the state that the daemon wrote. Throws with a sentence on anything else. */
export function readState(path: string): ResolverState {
  const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'))
  if (!isRecord(parsed) || parsed['version'] !== stateVersion) {
    throw new Error(`${path} is not a resolver state of version ${stateVersion}`)
  }
  const { networks, clients } = parsed
  // Looked at, not copied: there are tens of thousands of names, and questions wait meanwhile.
  if (!Array.isArray(networks) || !networks.every(isZone) || !isRecordOf(clients, isClient)) {
    throw new Error(`${path} is damaged`)
  }
  return { version: stateVersion, networks, clients }
}

function isZone(value: unknown): value is Zone {
  return (
    isRecord(value) &&
    [value['id'], value['subnet'], value['gateway']].every(isString) &&
    typeof value['internal'] === 'boolean' &&
    isRecordOf(value['names'], isStrings) &&
    isRecordOf(value['shares'], isNumbers) &&
    isRecordOf(value['reverse'], isString)
  )
}

function isClient(value: unknown): value is Client {
  return isRecord(value) && isStrings(value['networks']) && isStrings(value['nameservers'])
}

function isRecordOf<Value>(
  value: unknown,
  isValue: (item: unknown) => item is Value,
): value is Readonly<Record<string, Value>> {
  if (!isRecord(value)) return false
  for (const key in value) if (!isValue(value[key])) return false
  return true
}

function isString(value: unknown): value is string {
  return typeof value === 'string'
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every(isString)
}

function isNumbers(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'number')
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
