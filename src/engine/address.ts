import { UserError } from '../base/index.ts'

/** Where an Engine API is served. */
export type EngineAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'tcp'; readonly host: string; readonly port: number }

/** Reads `unix:///path` or `tcp://host:port` (port 2375 when absent). Throws `invalidInput` on anything else. */
export function parseEngineAddress(text: string): EngineAddress {
  const unix = /^unix:\/\/(\/.+)$/.exec(text)
  if (unix?.[1]) return { type: 'unix', path: unix[1] }
  const tcp = /^(?:tcp|http):\/\/(\[[0-9a-fA-F:.]+\]|[^:/[\]]+)(?::(\d{1,5}))?\/?$/.exec(text)
  const port = Number(tcp?.[2] ?? 2375)
  if (tcp?.[1] && port > 0 && port < 65_536) {
    return { type: 'tcp', host: tcp[1].replace(/^\[|\]$/g, ''), port }
  }
  throw new UserError('invalidInput', `"${text}" is not the address of a Docker Engine`, {
    next: 'Write it as unix:///var/run/docker.sock or tcp://127.0.0.1:2375.',
  })
}

export function formatEngineAddress(address: EngineAddress): string {
  if (address.type === 'unix') return `unix://${address.path}`
  const host = address.host.includes(':') ? `[${address.host}]` : address.host
  return `tcp://${host}:${address.port}`
}

/** The part of `http.request` options that leads there. */
export function connectOptionsOf(
  address: EngineAddress,
): { socketPath: string } | { host: string; port: number } {
  return address.type === 'unix'
    ? { socketPath: address.path }
    : { host: address.host, port: address.port }
}
