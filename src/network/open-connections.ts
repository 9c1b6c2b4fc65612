import { readFile } from 'node:fs/promises'

/** TCP states that stand for a connection somebody uses. Source: the kernel's tcp_states.h. */
const openStates: ReadonlySet<string> = new Set(['01', '03']) // ESTABLISHED, SYN_RECV

/**
 * Connections to the ports in the network namespace of a process: established, or about to be. Those over the loopback
 * (health checks) are not counted. 0 when the process is gone.
 */
export async function countOpenConnections(
  pid: number,
  ports: readonly { readonly protocol: string; readonly port: number }[],
): Promise<number> {
  const wanted = new Set(ports.filter(({ protocol }) => protocol === 'tcp').map(({ port }) => port))
  if (pid <= 0 || wanted.size === 0) return 0
  const tables = await Promise.all(
    // A missing table: no such process, or no IPv6.
    ['tcp', 'tcp6'].map((table) => readFile(`/proc/${pid}/net/${table}`, 'utf8').catch(() => '')),
  )
  return tables.reduce((sum, table) => sum + countOpen(table, wanted), 0)
}

/** Counts in the text of `/proc/net/tcp` or `tcp6`. */
export function countOpen(table: string, ports: ReadonlySet<number>): number {
  let count = 0
  for (const line of table.split('\n')) {
    const [, local = '', , state = ''] = line.trim().split(/\s+/)
    if (!openStates.has(state)) continue
    const [address = '', port = ''] = local.split(':')
    if (ports.has(Number.parseInt(port, 16)) && !isLoopback(address)) count++
  }
  return count
}

/** Addresses are words of 4 bytes in the machine's order, which is little-endian on all that Docker runs on today. */
function isLoopback(address: string): boolean {
  if (address === '00000000000000000000000001000000') return true
  const isMapped = address.startsWith('0000000000000000FFFF0000')
  const ipv4 = isMapped ? address.slice(24) : address
  return ipv4.length === 8 && ipv4.endsWith('7F')
}
