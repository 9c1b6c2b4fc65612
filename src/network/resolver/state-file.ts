import { readFileSync } from 'node:fs'
import { type Client, type ResolverState, stateVersion, type Zone } from './zones.ts'

/** Reads the state that the daemon wrote. Throws with a sentence on anything else. */
export function readState(path: string): ResolverState {
  const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'))
  if (!isRecord(parsed) || parsed['version'] !== stateVersion) {
    throw new Error(`${path} is not a resolver state of version ${stateVersion}`)
  }
  const { networks, clients } = parsed
  if (!Array.isArray(networks) || !isRecord(clients)) throw new Error(`${path} is damaged`)
  return {
    version: stateVersion,
    networks: networks.filter(isRecord).map(
      (zone): Zone => ({
        id: String(zone['id']),
        subnet: String(zone['subnet']),
        gateway: String(zone['gateway']),
        internal: zone['internal'] === true,
        names: mapValues(zone['names'], strings),
        shares: mapValues(zone['shares'], (list) => (Array.isArray(list) ? list.map(Number) : [])),
        reverse: mapValues(zone['reverse'], String),
      }),
    ),
    clients: mapValues(clients, (client): Client => {
      const { networks: ids, nameservers } = isRecord(client) ? client : {}
      return { networks: strings(ids), nameservers: strings(nameservers) }
    }),
  }
}

function mapValues<Value>(
  value: unknown,
  parse: (value: unknown) => Value,
): Readonly<Record<string, Value>> {
  if (!isRecord(value)) return {}
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, parse(item)]))
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : []
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
