import { createSocket, type Socket } from 'node:dgram'
import { messageOf, UserError } from '../base/index.ts'
import type { PathCounts, PathProbe, PathProbeOrder } from '../wire/index.ts'
import { hostNamespace } from './namespace.ts'

/** What IPv4 and UDP headers take of a packet, in bytes. */
const headerBytes = 28
/** A small packet, with all headers, in bytes: it fits through anything. */
const smallBytes = 92
/** Packets of each size to each peer: one may be lost on the way. */
const packetsEach = 3

const sizes = ['small', 'large'] as const
const places = ['arrived', 'accepted'] as const

/**
 * Counts test packets that other nodes send to the port of cluster networks, before the host's firewall and behind it,
 * and sends such packets. They are VXLAN packets with an identifier that nobody uses: the kernel throws them away.
 */
export async function openPathProbe(order: PathProbeOrder): Promise<PathProbe> {
  const table = `skep-probe-${order.token.toString(16)}`
  const told = await hostNamespace.run('nft', ['-f', '-'], renderProbeTable(table, order))
  if (told?.code !== 0) {
    throw new UserError('internal', `test packets can't be counted: ${told?.stderr ?? ''}`, {
      next: 'Check that the kernel has nftables.',
    })
  }
  const socket = createSocket('udp4')
  return {
    async send() {
      await bind(socket, order.address)
      const failed: { readonly sender: number; readonly why: string }[] = []
      for (const { sender, address } of order.peers) {
        try {
          for (let round = 0; round < packetsEach; round++) {
            for (const size of sizes) await sendTo(socket, packet(order, size), order.port, address)
          }
        } catch (error) {
          failed.push({ sender, why: messageOf(error) })
        }
      }
      return failed
    },
    async read() {
      const listed = await hostNamespace.run('nft', [
        '-j',
        'list',
        'counters',
        'table',
        'inet',
        table,
      ])
      return parseCounts(listed?.stdout ?? '', order)
    },
    async close() {
      await new Promise<void>((resolve) => socket.close(() => resolve()))
      await hostNamespace.run('nft', ['delete', 'table', 'inet', table])
    },
  }
}

/** The second word of a VXLAN header: 24 bits of identifier, of which the kernel knows none, and the sender. */
function wordOf(token: number, sender: number, size: (typeof sizes)[number]): number {
  return token * 256 + sender * 2 + (size === 'large' ? 1 : 0)
}

export function renderProbeTable(table: string, { token, port, peers }: PathProbeOrder): string {
  const lines = [`table inet ${table} {`]
  const each = peers.flatMap(({ sender }) => sizes.map((size) => ({ sender, size })))
  for (const { sender, size } of each) {
    for (const place of places) lines.push(`  counter ${size}-${place}-${sender} {}`)
  }
  const hooks = { arrived: 'prerouting priority -350', accepted: 'input priority 400' }
  for (const place of places) {
    lines.push(`  chain ${place} {`, `    type filter hook ${hooks[place]}; policy accept;`)
    for (const { sender, size } of each) {
      const word = `0x${wordOf(token, sender, size).toString(16)}`
      lines.push(
        `    meta l4proto udp th dport ${port} @th,96,32 ${word} counter name "${size}-${place}-${sender}"`,
      )
    }
    lines.push('  }')
  }
  return `${lines.join('\n')}\n}\n`
}

/** Reads `nft -j list counters`. */
export function parseCounts(
  json: string,
  { peers }: Pick<PathProbeOrder, 'peers'>,
): readonly PathCounts[] {
  const packets = new Map(
    [...json.matchAll(/"name":\s*"(\w+-\w+-\d+)"[^}]*?"packets":\s*(\d+)/g)].map(
      ([, name = '', count]) => [name, Number(count)],
    ),
  )
  return peers.map(({ sender }) => ({
    sender,
    smallArrived: packets.get(`small-arrived-${sender}`) ?? 0,
    smallAccepted: packets.get(`small-accepted-${sender}`) ?? 0,
    largeArrived: packets.get(`large-arrived-${sender}`) ?? 0,
    largeAccepted: packets.get(`large-accepted-${sender}`) ?? 0,
  }))
}

function packet(
  { token, own, largeBytes }: PathProbeOrder,
  size: (typeof sizes)[number],
): Uint8Array {
  const bytes = Buffer.alloc((size === 'large' ? largeBytes : smallBytes) - headerBytes)
  bytes.writeUInt8(8, 0) // The identifier is given. Source: RFC 7348, section 5.
  bytes.writeUInt32BE(wordOf(token, own, size), 4)
  return bytes
}

function bind(socket: Socket, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind({ address, port: 0 }, () => {
      socket.off('error', reject)
      // Nobody takes packets there: some kernels say so to the sender.
      socket.on('error', () => {})
      resolve()
    })
  })
}

function sendTo(socket: Socket, bytes: Uint8Array, port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(bytes, port, address, (error) => (error ? reject(error) : resolve()))
  })
}
