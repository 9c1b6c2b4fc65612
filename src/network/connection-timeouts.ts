import { readFile } from 'node:fs/promises'
import type { Family } from './ruleset.ts'

/** States of a tcp connection that are remembered for a time. Names are nft's. */
const connectionStates = [
  'syn_sent',
  'syn_recv',
  'established',
  'fin_wait',
  'close_wait',
  'last_ack',
  'time_wait',
  'close',
  'retrans',
  'unack',
] as const
type ConnectionState = (typeof connectionStates)[number]

/** For how long the kernel remembers a connection that says nothing more, in seconds. */
export type ConnectionTimeouts = Readonly<Record<ConnectionState, number>>

/** Where the kernel's own name of a state is another. Source: its documentation, nf_conntrack-sysctl. */
const kernelNames: Partial<Record<ConnectionState, string>> = {
  retrans: 'max_retrans',
  unack: 'unacknowledged',
}

/**
 * Longest memory of a connection that both ends have finished, in seconds. What comes late of it is refused without it,
 * which its ends take as well; the kernel's default is 120.
 *
 * A memory must have ended when its client takes the same port again. The engine forgets the connections of each container it
 * stops: it lists all, then deletes those it found by their ends, some tenths of a second later, also where another connection of
 * the same ends, to another task, began in between. That one's answers then came from an address its client never asked. And
 * memories fill the kernel's table: at 120 s it is full at some 2,000 new connections a second, at 5 s at 50,000.
 */
const finishedSeconds = 5

/** This host's own, as set for the rest of it, but for finished connections. */
export async function readConnectionTimeouts(
  readText: (path: string) => Promise<string> = (path) => readFile(path, 'utf8'),
): Promise<ConnectionTimeouts> {
  const read = async (state: ConnectionState) => {
    const name = `nf_conntrack_tcp_timeout_${kernelNames[state] ?? state}`
    const text = await readText(`/proc/sys/net/netfilter/${name}`).catch(() => '')
    const seconds = Number.parseInt(text, 10)
    return seconds > 0 ? seconds : defaults[state]
  }
  const entries = await Promise.all(
    connectionStates.map(async (state) => [state, await read(state)] as const),
  )
  const host = { ...defaults, ...Object.fromEntries(entries) }
  return { ...host, time_wait: Math.min(host.time_wait, finishedSeconds) }
}

/** The kernel's, for a host whose connection tracking was not looked at yet. */
const defaults: ConnectionTimeouts = {
  syn_sent: 120,
  syn_recv: 60,
  established: 432_000,
  fin_wait: 120,
  close_wait: 60,
  last_ack: 30,
  time_wait: 120,
  close: 10,
  retrans: 300,
  unack: 300,
}

/** As the body of a `ct timeout` of nft. */
export function timeoutPolicy(family: Family, timeouts: ConnectionTimeouts): string {
  const policy = Object.entries(timeouts).map(([state, seconds]) => `${state} : ${seconds}`)
  return `protocol tcp; l3proto ${family}; policy = { ${policy.join(', ')} };`
}
