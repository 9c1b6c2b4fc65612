import { type Clock, messageOf, type Random, UserError, within } from '../base/index.ts'
import { dataAddressOf } from '../dispatcher/index.ts'
import type { ClusterNode, NodeId } from '../model/index.ts'
import type { View } from '../store/index.ts'
import {
  type NetworkFinding,
  type NodeExamination,
  type PathCounts,
  type PathProbeOrder,
  pathSendersMax,
} from '../wire/index.ts'
import type { ClusterPort } from './cluster-port.ts'
import { errorOf, parseExamination, parsePathCounts, parseRefusal } from './messages.ts'
import { Fields } from './read.ts'
import type { Message, MessageStream } from './transport.ts'

/** What the nodes' networks are like, and what is wrong. */
export interface NetworkReport {
  readonly nodes: readonly NodeReport[]
  readonly findings: readonly ReportedFinding[]
  /** Paths from one node to another that were tested. */
  readonly pathsTested: number
}

export interface NodeReport {
  readonly id: NodeId
  readonly name: string
  readonly driftCount: number
  readonly mtuBytes?: number
  /** How far its clock is ahead of the asking manager's, in ms; as exact as its answer was quick. */
  readonly clockAheadMs: number
}

export interface ReportedFinding extends NetworkFinding {
  /** Name of the node. */
  readonly node: string
}

export interface DoctorOptions {
  readonly view: View
  readonly port: Pick<ClusterPort, 'ask'>
  readonly clock: Clock
  readonly random: Random
  /** Nodes to look at, and networks that findings are about. Absent: all. */
  readonly nodes?: readonly NodeId[]
  readonly network?: string
}

/** For a node to say how it is, in ms: it audits its whole network. */
const examineMsMax = 60_000
/** For one step of a test of paths, in ms. */
const probeStepMs = 15_000
/** For packets that are under way to arrive, in ms. */
const arrivalMs = 500
/** Difference between two clocks that is worth a word, in ms. */
export const clockAheadMsMax = 2_000

/** Asks every node how its part of the cluster's networks is, and has each send test packets to each other. */
export async function examineNetworks(
  options: DoctorOptions,
  signal: AbortSignal,
): Promise<NetworkReport> {
  const { view, nodes: chosen, network } = options
  const all = [...view.list('node')].sort((a, b) => (a.name < b.name ? -1 : 1))
  const isChosen = ({ id }: ClusterNode) => !chosen || chosen.includes(id)
  const up = all.filter(({ status }) => status.state === 'ready')
  const examined = await Promise.all(
    up.filter(isChosen).map((node) => examineNode(options, node, signal)),
  )
  // A node's paths are to all others, whichever were asked for.
  const probed = [...up].sort((a, b) => Number(isChosen(b)) - Number(isChosen(a)))
  const mtuById = new Map(examined.map(({ id, mtuBytes }) => [id, mtuBytes]))
  const paths = await testPaths(options, probed.slice(0, pathSendersMax), mtuById, signal)
  const findings = [
    ...all
      .filter((node) => isChosen(node) && node.status.state !== 'ready')
      .map(
        (node): ReportedFinding => ({
          node: node.name,
          what: `node ${node.name} is ${node.status.state}: ${node.status.message || 'no session'}`,
          next: 'Look at its daemon there; what is wrong with its network can not be asked.',
        }),
      ),
    ...examined.flatMap(({ name, clockAheadMs, examination, failure }): ReportedFinding[] => [
      ...(failure === undefined
        ? []
        : [{ node: name, what: failure, next: "See the daemon's log on that node." }]),
      ...clockFinding(name, clockAheadMs),
      ...(examination?.findings ?? []).map((finding) => ({ node: name, ...finding })),
    ]),
    ...paths.findings.filter(({ from, to }) => isChosen(from) || isChosen(to)).map(raisePath),
  ]
  return {
    nodes: examined.map(({ id, name, mtuBytes, clockAheadMs, examination }) => ({
      id,
      name,
      driftCount: examination?.driftCount ?? 0,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      clockAheadMs,
    })),
    findings: findings.filter((finding) => !network || (finding.network ?? network) === network),
    pathsTested: paths.tested,
  }
}

interface ExaminedNode {
  readonly id: NodeId
  readonly name: string
  readonly mtuBytes: number | undefined
  readonly clockAheadMs: number
  readonly examination: NodeExamination | undefined
  readonly failure: string | undefined
}

async function examineNode(
  { port, clock }: DoctorOptions,
  { id, name }: ClusterNode,
  signal: AbortSignal,
): Promise<ExaminedNode> {
  try {
    const message = await within(clock, examineMsMax, async (late) => {
      const ended = AbortSignal.any([signal, late])
      const { stream, over } = await port.ask(id, { kind: 'examine' }, ended)
      try {
        return await stream.receive(AbortSignal.any([ended, over]))
      } finally {
        stream.close()
      }
    })
    const answeredAtMs = clock.nowMs()
    const examination = parseExamination(answerOf(message, 'examined'))
    const mtuBytes = examination.dataPath?.mtuBytes
    const clockAheadMs = examination.nowMs - answeredAtMs
    return { id, name, mtuBytes, clockAheadMs, examination, failure: undefined }
  } catch (error) {
    const failure = `node ${name} did not say how it is: ${messageOf(error)}`
    return { id, name, mtuBytes: undefined, clockAheadMs: 0, examination: undefined, failure }
  }
}

function clockFinding(node: string, aheadMs: number): readonly ReportedFinding[] {
  if (Math.abs(aheadMs) < clockAheadMsMax) return []
  const seconds = (Math.abs(aheadMs) / 1000).toFixed(1)
  return [
    {
      node,
      what: `its clock is ${seconds} s ${aheadMs > 0 ? 'ahead of' : 'behind'} that of the asking manager`,
      next: 'Set both clocks by chrony or systemd-timesyncd: certificates and logs are read by them.',
    },
  ]
}

// ---- Paths ----

/** What is wrong with the way of packets from one node to another. */
export interface PathFinding {
  readonly from: ClusterNode
  readonly to: ClusterNode
  readonly port: number
  readonly trouble:
    | { readonly type: 'notSent'; readonly why: string }
    | { readonly type: 'lost' }
    | { readonly type: 'firewall' }
    | { readonly type: 'mtu'; readonly bytes: number }
}

async function testPaths(
  { view, port, clock, random }: DoctorOptions,
  nodes: readonly ClusterNode[],
  mtuById: ReadonlyMap<NodeId, number | undefined>,
  signal: AbortSignal,
): Promise<{ readonly findings: readonly PathFinding[]; readonly tested: number }> {
  const [cluster] = view.list('cluster')
  const able = nodes.filter((node) => dataAddressOf(node) !== '')
  if (!cluster || able.length < 2) return { findings: [], tested: 0 }
  const dataPort = cluster.status.dataPathPort
  const token = random.below(1 << 24)
  const largeBytesOf = ({ id }: ClusterNode) => mtuById.get(id) ?? mtuUsual
  const findings: PathFinding[] = []
  const open = await Promise.all(
    able.map(async (node, own) => {
      const order: PathProbeOrder = {
        ...{ token, own, port: dataPort, address: dataAddressOf(node) },
        largeBytes: largeBytesOf(node),
        peers: able.flatMap((peer, sender) =>
          sender === own ? [] : [{ sender, address: dataAddressOf(peer) }],
        ),
      }
      try {
        const { stream, over } = await port.ask(node.id, { kind: 'probe', order }, signal)
        const conversation = new Conversation(stream, AbortSignal.any([signal, over]), clock)
        await conversation.expect('ready')
        return { node, own, conversation }
      } catch {
        return undefined // It has said already, when it was examined, what is wrong with it.
      }
    }),
  )
  const taking = open.filter((each) => each !== undefined)
  try {
    await Promise.all(
      taking.map(async ({ node, conversation }) => {
        const sent = await conversation.ask('send', 'sent').catch(() => undefined)
        for (const failed of sent?.list('failed', (value) => new Fields('failed', value)) ?? []) {
          const to = able[failed.number('sender')]
          const trouble = { type: 'notSent', why: failed.text('why', 1_000) } as const
          if (to) findings.push({ from: node, to, port: dataPort, trouble })
        }
      }),
    )
    await clock.sleep(arrivalMs, signal)
    await Promise.all(
      taking.map(async ({ node: to, conversation }) => {
        const answer = await conversation.ask('read', 'counts').catch(() => undefined)
        for (const counts of answer?.list('counts', parsePathCounts) ?? []) {
          const from = taking.find(({ own }) => own === counts.sender)?.node
          const trouble = from && judgePath(counts, largeBytesOf(from))
          const isKnown = findings.some((known) => known.from === from && known.to === to)
          if (from && trouble && !isKnown) findings.push({ from, to, port: dataPort, trouble })
        }
      }),
    )
  } finally {
    for (const { conversation } of taking) conversation.close()
  }
  return { findings, tested: taking.length * (taking.length - 1) }
}

const mtuUsual = 1500

/** What the packets that a node counted say of the way that they came. Undefined: all is well. */
export function judgePath(counts: PathCounts, bytes: number): PathFinding['trouble'] | undefined {
  if (counts.smallArrived === 0) return { type: 'lost' }
  if (counts.smallAccepted === 0) return { type: 'firewall' }
  if (counts.largeArrived === 0 || counts.largeAccepted === 0) return { type: 'mtu', bytes }
  return undefined
}

function raisePath({ from, to, port, trouble }: PathFinding): ReportedFinding {
  const way = `from ${from.name} (${dataAddressOf(from)}) to ${to.name} (${dataAddressOf(to)})`
  switch (trouble.type) {
    case 'notSent':
      return {
        node: from.name,
        what: `packets of cluster networks can't be sent ${way}: ${trouble.why}`,
        next: 'Look at the routes and the firewall (chain OUTPUT) of that node.',
      }
    case 'lost':
      return {
        node: to.name,
        what: `packets of cluster networks ${way} do not arrive (udp port ${port})`,
        next: `Let udp port ${port} through between all nodes (security groups, routers, the sender's firewall), or have them use another way with --data-path-addr.`,
      }
    case 'firewall':
      return {
        node: to.name,
        what: `packets of cluster networks ${way} arrive, and the firewall of ${to.name} drops them (udp port ${port})`,
        next: `Let them in there: iptables -I INPUT -p udp --dport ${port} -j ACCEPT, or the same in that firewall's own settings.`,
      }
    case 'mtu':
      return {
        node: from.name,
        what: `large packets ${way} are lost on the way: those of ${trouble.bytes} bytes do not arrive, small ones do`,
        next: 'Give the device of the data path the MTU that the way between the nodes has (ip link set … mtu …), or create networks with --opt com.docker.network.driver.mtu=….',
      }
    default:
      return trouble satisfies never
  }
}

/** A node's part in a test, step by step. */
class Conversation {
  readonly #stream: MessageStream
  readonly #signal: AbortSignal
  readonly #clock: Clock

  constructor(stream: MessageStream, signal: AbortSignal, clock: Clock) {
    this.#stream = stream
    this.#signal = signal
    this.#clock = clock
  }

  async ask(type: string, answer: string): Promise<Fields> {
    const message: Message = { type }
    await this.#stream.send(message)
    return await this.expect(answer)
  }

  async expect(answer: string): Promise<Fields> {
    try {
      const message = await within(this.#clock, probeStepMs, (late) =>
        this.#stream.receive(AbortSignal.any([this.#signal, late])),
      )
      return answerOf(message, answer)
    } catch (error) {
      this.close()
      throw error
    }
  }

  close(): void {
    this.#stream.close()
  }
}

function answerOf(message: unknown, type: string): Fields {
  if (message === undefined) throw new UserError('unavailable', 'the node broke off its answer')
  const fields = new Fields('answer', message)
  const got = fields.text('type', 100)
  if (got === 'refused') throw errorOf(parseRefusal(message))
  if (got !== type) throw new UserError('internal', `the node answered "${got}", not "${type}"`)
  return fields
}
