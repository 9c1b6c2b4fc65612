import { readFile } from 'node:fs/promises'

/** TCP states that stand for a connection somebody uses. Source: the kernel's tcp_states.h. */
const openStates: ReadonlySet<string> = new Set(['01', '03']) // ESTABLISHED, SYN_RECV
const listenStates: ReadonlySet<string> = new Set(['0A']) // LISTEN

/**
 * Connections, established or about to be, to ports that somebody listens on in the network namespace of a process: those it
 * takes, not those it makes. Over the loopback (health checks) they are not counted. 0 when the process is gone.
 */
export async function countOpenConnections(pid: number): Promise<number> {
  return countOpen(await readSockets(pid))
}

/** Ports on which somebody takes connections from elsewhere in the network namespace of a process. Undefined: it is gone. */
export async function listeningPorts(pid: number): Promise<ReadonlySet<number> | undefined> {
  const tables = await readSockets(pid)
  return tables === '' ? undefined : new Set(sockets(tables, listenStates).map(({ port }) => port))
}

/** Empty where there is no such process. */
async function readSockets(pid: number): Promise<string> {
  if (pid <= 0) return ''
  const tables = await Promise.all(
    // A missing table: no such process, or no IPv6.
    ['tcp', 'tcp6'].map((table) => readFile(`/proc/${pid}/net/${table}`, 'utf8').catch(() => '')),
  )
  return tables.join('')
}

/** Counts in the text of `/proc/net/tcp` and `tcp6`. */
export function countOpen(tables: string): number {
  const listening = new Set(sockets(tables, listenStates).map(({ port }) => port))
  return sockets(tables, openStates).filter(({ port }) => listening.has(port)).length
}

/** Sockets in such a state that are not on the loopback. */
function sockets(tables: string, states: ReadonlySet<string>): readonly { port: number }[] {
  return tables.split('\n').flatMap((line) => {
    const [, local = '', , state = ''] = line.trim().split(/\s+/)
    if (!states.has(state)) return []
    const [address = '', port = ''] = local.split(':')
    return isLoopback(address) ? [] : [{ port: Number.parseInt(port, 16) }]
  })
}

/** Addresses are words of 4 bytes in the machine's order, which is little-endian on all that Docker runs on today. */
function isLoopback(address: string): boolean {
  if (address === '00000000000000000000000001000000') return true
  const isMapped = address.startsWith('0000000000000000FFFF0000')
  const ipv4 = isMapped ? address.slice(24) : address
  return ipv4.length === 8 && ipv4.endsWith('7F')
}
