import {
  type Clock,
  type Log,
  messageOf,
  newId,
  type Random,
  UserError,
  unreachable,
  untilAborted,
  within,
} from '../base/index.ts'
import { clusterOf } from '../control/index.ts'
import type { Dispatcher } from '../dispatcher/index.ts'
import type { ClusterNode, NodeId } from '../model/index.ts'
import { rootHashOf } from '../security/index.ts'
import { type Commit, nextCommit, type Store } from '../store/index.ts'
import type { AttachmentDesk } from './attachments.ts'
import { decideRefusal } from './authorisation.ts'
import { type Authority, isHalfJoined, managersOf, rootsOf } from './authority.ts'
import {
  type Call,
  callMessage,
  type ManagerAddress,
  type MemberAdmission,
  type NodeRequest,
  parseCall,
  protocolVersion,
  refused,
  type SessionSettings,
} from './messages.ts'
import { Fields } from './read.ts'
import { type SessionServer, serveSession } from './session-server.ts'
import type { Listener, Message, MessageStream, Transport } from './transport.ts'

export interface ClusterPortOptions {
  readonly transport: Transport
  /** `0.0.0.0:2377`; port 0 takes a free one. */
  readonly listenAddress: string
  readonly store: Store
  readonly authority: Authority
  /** The leader's dispatcher while this manager leads. */
  readonly dispatcher: () =>
    | Pick<
        Dispatcher,
        'open' | 'heard' | 'ended' | 'returning' | 'hostStops' | 'livenessLimits' | 'turns'
      >
    | undefined
  /** What other nodes reach this manager by, `host:port`; known once the port is open. */
  readonly ownAddress: () => string
  /** Who leads as far as this manager knows, where there are several. Absent: there is no other one. */
  readonly leader?: () => ManagerAddress | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly skepVersion: string
  /** How managers are let in that are to keep the state too. Absent: not at all. */
  readonly members?: ManagerMembers
  /** Where a node gets addresses for its plain containers, while this manager leads. Absent: nowhere. */
  readonly attachments?: (nodeId: NodeId) => AttachmentDesk | undefined
  /** This manager's own node, which has no session over the network while it leads. */
  readonly own?: {
    readonly nodeId: NodeId
    /** Has it answer as any node does: on a stream to this port. */
    readonly ask: (ask: {
      readonly id: string
      readonly address: string
      readonly request: NodeRequest
    }) => void
  }
}

/** Takes managers in among those who keep the cluster's state. */
export interface ManagerMembers {
  add(nodeId: NodeId, address: string): Promise<MemberAdmission>
  promote(nodeId: NodeId, memberId: string): Promise<void>
}

/** The manager's end of the cluster port. */
export interface ClusterPort {
  readonly address: string
  /**
   * Asks a node for something and resolves with the stream on which it answers. Rejects with `unavailable` when the
   * node has no session with this manager, or does not answer in time.
   */
  ask(nodeId: NodeId, request: NodeRequest, signal: AbortSignal): Promise<Answer>
  /** This manager leads no longer, or does now: nodes look for the leader anew. */
  leadershipChanged(): void
  close(): Promise<void>
}

/** What a node answers with. */
export interface Answer {
  readonly stream: MessageStream
  /** Aborted when the node's session is over: a stream of a host that is gone says nothing of it. */
  readonly over: AbortSignal
}

/** For the first message on a connection, in ms. */
const firstMessageMs = 10_000
/** For a node to open the stream that it was asked for, in ms. */
const answerMs = 5_000
/** For a leader to be elected, while nodes that look for one wait, in ms: less than they wait for an answer. */
const electionMs = 3_000
/** Questions to nodes that wait for their streams. */
const asksMax = 10_000
/** Time that a manager takes to sign a certificate, with room for other work, in ms. */
const signMs = 20

/** Opens the cluster port. Rejects with `failedPrecondition` when the address can't be used. */
export async function openClusterPort(options: ClusterPortOptions): Promise<ClusterPort> {
  const port = new RunningPort(options)
  await port.listen()
  return port
}

interface Ask {
  readonly nodeId: NodeId
  readonly answered: (stream: MessageStream) => void
}

class RunningPort implements ClusterPort {
  readonly #options: ClusterPortOptions
  readonly #stop = new AbortController()
  /** Aborts when another one leads: what was asked through the leader before has no end. */
  #leaderChanged = new AbortController()
  readonly #sessions = new Map<NodeId, SessionServer>()
  readonly #asks = new Map<string, Ask>()
  readonly #unsubscribe: () => void
  /** What is the same in every node's settings, as text. */
  #commonSettings = ''
  #listener: Listener | undefined

  constructor(options: ClusterPortOptions) {
    this.#options = options
    this.#unsubscribe = options.store.subscribe((commit) => this.#learn(commit))
  }

  get address(): string {
    return this.#listener?.address ?? this.#options.listenAddress
  }

  async listen(): Promise<void> {
    const { transport, listenAddress } = this.#options
    this.#listener = await transport.listen(listenAddress, (stream) => void this.#serve(stream))
  }

  async ask(nodeId: NodeId, request: NodeRequest, signal: AbortSignal): Promise<Answer> {
    const { clock, random } = this.#options
    const { own } = this.#options
    const session = this.#sessions.get(nodeId)
    const isOwn = own?.nodeId === nodeId
    if (!session && !isOwn) return this.#askLeader(nodeId, request, signal)
    if (this.#asks.size >= asksMax) {
      throw new UserError('unavailable', `more than ${asksMax} questions to nodes are open`)
    }
    const id = newId(random)
    const done = new AbortController()
    const stream = new Promise<MessageStream>((resolve, reject) => {
      this.#asks.set(id, { nodeId, answered: resolve })
      const giveUp = (why: string) => () =>
        reject(new UserError('unavailable', `node ${nodeId} ${why}`))
      void clock.sleep(answerMs, done.signal).then(giveUp(`did not answer in ${answerMs / 1000} s`))
      const once = { once: true, signal: done.signal }
      session?.ended.addEventListener('abort', giveUp('has lost its session'), once)
      signal.addEventListener('abort', giveUp('was no longer waited for'), once)
      const address = this.#options.ownAddress()
      if (session) session.ask({ type: 'request', id, address, request }).catch(reject)
      else own?.ask({ id, address, request })
    })
    try {
      return { stream: await stream, over: session?.ended ?? this.#stop.signal }
    } finally {
      done.abort()
      this.#asks.delete(id)
    }
  }

  /** The leader has the sessions: it asks the node, and hands on what either says. */
  async #askLeader(nodeId: NodeId, request: NodeRequest, signal: AbortSignal): Promise<Answer> {
    const { clock, transport, own, skepVersion } = this.#options
    // As the election says: what is stored of it may come later than the last word on who leads, and name one that is gone.
    const leader = this.#options.leader?.()
    if (!leader || !own || leader.nodeId === own.nodeId) {
      throw new UserError('unavailable', `node ${nodeId} has no session with this manager`)
    }
    // A leader that is gone may not even refuse, and nothing says so but the next one.
    const over = this.#leaderChanged.signal
    return within(clock, answerMs, async (late) => {
      const asking = AbortSignal.any([signal, over, late])
      const stream = await transport.connect(leader.address, { type: 'cluster' }, asking)
      await stream.send(callMessage({ call: 'relay', nodeId, request }, skepVersion))
      return { stream, over }
    })
  }

  leadershipChanged(): void {
    this.#leaderChanged.abort()
    this.#leaderChanged = new AbortController()
    if (this.#options.dispatcher()) return
    for (const session of this.#sessions.values()) session.close(noLongerLeads())
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#unsubscribe()
    const why = new UserError('unavailable', 'this manager is shutting down')
    const sessions = [...this.#sessions.values()]
    for (const session of sessions) session.close(why, true)
    await this.#listener?.close()
    await Promise.all(sessions.map(({ over }) => over))
  }

  async #serve(stream: MessageStream): Promise<void> {
    const { clock, log } = this.#options
    try {
      const first = await within(clock, firstMessageMs, (late) =>
        stream.receive(AbortSignal.any([late, this.#stop.signal])),
      )
      if (first === undefined) {
        stream.close()
        return
      }
      const { call } = parseCall(first)
      const { peer } = stream
      // Another manager may have acknowledged what has not come here yet: a node that it has just let in, a token it made.
      if (call.call !== 'root' && !this.#options.dispatcher()) await this.#options.store.barrier?.()
      const known =
        peer.type === 'anonymous' ? undefined : this.#options.store.view.get('node', peer.nodeId)
      const refusal = decideRefusal(call.call, peer, known)
      if (refusal) {
        log.warn('a call on the cluster port was refused', {
          call: call.call,
          from: stream.remoteAddress,
          why: refusal.message,
        })
        throw refusal
      }
      await this.#handle(call, stream, known)
    } catch (error) {
      if (!(error instanceof UserError)) {
        log.error('a call on the cluster port failed', { error: messageOf(error) })
      }
      await stream.send(refused(error)).catch(() => {})
      stream.close()
    }
  }

  /** `known` is the node that calls; there is one wherever the table of authorisation asks for it. */
  async #handle(call: Call, stream: MessageStream, known: ClusterNode | undefined): Promise<void> {
    const { authority, clock, log, skepVersion } = this.#options
    switch (call.call) {
      case 'root': {
        const [certificatePem] = authority.rootsPem()
        const answer = {
          type: 'root',
          certificatePem,
          nowMs: clock.nowMs(),
          protocol: protocolVersion,
          skepVersion,
        }
        return this.#answerOnce(stream, answer)
      }
      case 'join': {
        const admission = await authority.admit(call.request, stream.remoteAddress)
        log.info('a node joined', { nodeId: admission.nodeId, address: admission.nodeAddress })
        return this.#answerOnce(stream, { type: 'admitted', ...admission })
      }
      case 'renew': {
        const admission = await authority.renew(idOf(known), call.csrPem)
        log.info('a node renewed its certificate', { nodeId: admission.nodeId })
        return this.#answerOnce(stream, { type: 'admitted', ...admission })
      }
      case 'session':
        return this.#beginSession(call, stream, idOf(known))
      case 'answer': {
        const ask = this.#asks.get(call.requestId)
        if (!ask || ask.nodeId !== idOf(known)) {
          throw new UserError('notFound', 'nobody waits for this answer')
        }
        ask.answered(stream)
        return
      }
      case 'leave':
        if (call.withdraw) await this.#withdraw(idOf(known))
        else await this.#leave(idOf(known))
        return this.#answerOnce(stream, { type: 'left' })
      case 'returning':
        if (!this.#isLeaderKnown()) await this.#untilLed(stream)
        this.#options.dispatcher()?.returning(idOf(known))
        return this.#answerOnce(stream, { type: 'awaited' })
      case 'leader': {
        if (!this.#isLeaderKnown()) await this.#untilLed(stream)
        const address = this.#options.dispatcher()
          ? this.#options.ownAddress()
          : this.#options.leader?.()?.address
        const answer = { type: 'leader', ...(address === undefined ? {} : { address }) }
        return this.#answerOnce(stream, answer)
      }
      case 'keys':
        log.info('a manager took the data keys', { nodeId: idOf(known) })
        return this.#answerOnce(stream, { type: 'keys', text: authority.dataKeys() })
      case 'addManager': {
        const admission = await this.#members().add(idOf(known), call.address)
        return this.#answerOnce(stream, { type: 'member', ...admission })
      }
      case 'promoteManager':
        await this.#members().promote(idOf(known), call.memberId)
        log.info('a manager takes part in keeping the state', { nodeId: idOf(known) })
        return this.#answerOnce(stream, { type: 'promoted' })
      case 'relay':
        return this.#relay(call, stream)
      case 'attach': {
        const place = await this.#deskOf(idOf(known)).attach(call.wish)
        return this.#answerOnce(stream, { type: 'attached', ...place })
      }
      case 'detach':
        await this.#deskOf(idOf(known)).detach(call.networkId, call.containers)
        return this.#answerOnce(stream, { type: 'detached' })
      case 'attachments': {
        const places = await this.#deskOf(idOf(known)).list()
        return this.#answerOnce(stream, { type: 'attachments', places })
      }
      default:
        return unreachable(call)
    }
  }

  /** It only ever gives and takes what is the calling node's own. */
  #deskOf(nodeId: NodeId): AttachmentDesk {
    const desk = this.#options.attachments?.(nodeId)
    if (desk) return desk
    throw new UserError('unavailable', 'this manager does not lead: another gives out addresses', {
      next: 'Try again in a moment.',
    })
  }

  #members(): ManagerMembers {
    const { members } = this.#options
    if (members) return members
    throw new UserError('unsupported', 'this manager takes no other manager in')
  }

  /** Hands messages on between a manager and a node until one of them ends. */
  async #relay(
    { nodeId, request }: Extract<Call, { readonly call: 'relay' }>,
    asker: MessageStream,
  ): Promise<void> {
    const gone = new AbortController()
    const ended = AbortSignal.any([gone.signal, this.#stop.signal])
    const { stream: node, over } = await this.ask(nodeId, request, ended)
    const signal = AbortSignal.any([ended, over])
    const handOn = async (from: MessageStream, to: MessageStream): Promise<void> => {
      for (;;) {
        const message = await from.receive(signal)
        if (message === undefined) return
        await to.send(messageFrom(message))
      }
    }
    const ways = [handOn(asker, node), handOn(node, asker)].map((way) =>
      way.catch(() => {}).finally(() => gone.abort()),
    )
    await Promise.all(ways)
    asker.close()
    node.close()
  }

  async #answerOnce(stream: MessageStream, answer: Message): Promise<void> {
    await stream.send(answer)
    stream.close()
  }

  async #beginSession(
    call: Extract<Call, { readonly call: 'session' }>,
    stream: MessageStream,
    nodeId: NodeId,
  ): Promise<void> {
    const { clock, log } = this.#options
    if (!this.#isLeaderKnown()) await this.#untilLed(stream)
    const dispatcher = this.#options.dispatcher()
    if (!dispatcher) {
      return this.#answerOnce(stream, { type: 'redirect', managers: this.#managers() })
    }
    const session = await serveSession(
      {
        stream,
        nodeId,
        dispatcher,
        clock,
        log,
        settings: () => this.#settingsOf(nodeId, dispatcher),
      },
      call,
    )
    if (this.#stop.signal.aborted) {
      session.close(new UserError('unavailable', 'this manager is shutting down'), true)
    }
    // Leadership may have ended while the node was written down: a node must not stay with one who has nothing to tell.
    if (this.#options.dispatcher() !== dispatcher) session.close(noLongerLeads())
    // It may have waited long, and the node's later session is the one that counts.
    if (session.ended.aborted) return
    this.#sessions.set(nodeId, session)
    log.info('a node has a session', { nodeId, from: stream.remoteAddress })
    void session.over.then(() => {
      if (this.#sessions.get(nodeId) === session) this.#sessions.delete(nodeId)
    })
  }

  #isLeaderKnown(): boolean {
    const { dispatcher, leader, own } = this.#options
    if (dispatcher() !== undefined || leader === undefined) return true
    // One that was elected just now has yet to begin.
    const led = leader()
    return led !== undefined && led.nodeId !== own?.nodeId
  }

  /** While a leader is being elected, a node waits here rather than asking all managers again and again. */
  async #untilLed(stream: MessageStream): Promise<void> {
    const { clock } = this.#options
    const done = new AbortController()
    void clock.sleep(electionMs, done.signal).then(() => done.abort())
    // A node that has found its leader elsewhere closes the stream.
    void stream.receive(done.signal).then(
      () => done.abort(),
      () => done.abort(),
    )
    try {
      while (!this.#isLeaderKnown() && !done.signal.aborted && !this.#stop.signal.aborted) {
        await untilAborted(
          AbortSignal.any([done.signal, this.#stop.signal, this.#leaderChanged.signal]),
        )
      }
    } finally {
      done.abort()
    }
  }

  /** Forgets a node that could not complete its join. One that counts already becomes a worker that is down. */
  async #withdraw(nodeId: NodeId): Promise<void> {
    const { store, clock, log } = this.#options
    for (;;) {
      const node = store.view.get('node', nodeId)
      if (!node) return
      const isForgotten = isHalfJoined(store.view, node)
      const sinceMs = clock.nowMs()
      const status = { ...node.status, state: 'down' as const, message: 'did not join', sinceMs }
      const asWorker = { ...node, spec: { ...node.spec, role: 'worker' as const }, status }
      try {
        await store.commit([
          isForgotten
            ? { type: 'delete', kind: 'node', id: node.id, version: node.version }
            : { type: 'update', object: asWorker, specChanged: true },
        ])
        log.info('a node took its join back', { nodeId })
        return
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(store, clock)
      }
    }
  }

  async #leave(nodeId: NodeId): Promise<void> {
    const { store, clock } = this.#options
    const node = store.view.get('node', nodeId)
    if (!node) return
    const status = {
      ...node.status,
      state: 'down' as const,
      message: 'left the cluster',
      sinceMs: clock.nowMs(),
    }
    await store.commit([{ type: 'update', object: { ...node, status } }])
    this.#sessions.get(nodeId)?.close(new UserError('notInCluster', 'the node has left'))
  }

  /** The leader first. */
  #managers(): readonly ManagerAddress[] {
    const managers = managersOf(this.#options.store.view.list('node'))
    const leader = this.#options.leader?.()
    if (!leader) return managers
    return [leader, ...managers.filter(({ nodeId }) => nodeId !== leader.nodeId)]
  }

  #settingsOf(nodeId: NodeId, dispatcher: Pick<Dispatcher, 'livenessLimits'>): SessionSettings {
    const { view } = this.#options.store
    const cluster = clusterOf(view)
    const { heartbeatMs, silenceMs } = dispatcher.livenessLimits()
    const node = view.get('node', nodeId)
    const certificate = node?.certificate
    const isOfThisRoot = certificate?.rootHash === rootHashOf(cluster.status.root.certificatePem)
    return {
      heartbeatMs,
      silenceMs,
      managers: this.#managers(),
      rootsPem: rootsOf(cluster),
      ...(node ? { role: node.spec.role } : {}),
      ...(certificate && !isOfThisRoot ? { renewWithinMs: view.count('node') * signMs } : {}),
    }
  }

  /** Sessions are told when what they were told may differ: all of them, or that of the node which changed. */
  #learn({ changes }: Commit): void {
    let isCommon = false
    for (const { kind, before, after } of changes) {
      if (kind === 'cluster') isCommon = true
      if (kind !== 'node') continue
      const [old, node] = [before, after].map((object) =>
        object?.kind === 'node' ? object : undefined,
      )
      if (!old || !node || old.manager !== node.manager) isCommon = true
      else if (old.certificate !== node.certificate || old.spec.role !== node.spec.role)
        this.#sessions.get(node.id)?.settingsChanged()
    }
    if (!isCommon) return
    const { view } = this.#options.store
    const [cluster] = view.list('cluster')
    const common = JSON.stringify([
      cluster && rootsOf(cluster),
      this.#managers(),
      this.#options.dispatcher()?.livenessLimits().heartbeatMs,
    ])
    if (common === this.#commonSettings) return
    this.#commonSettings = common
    for (const session of this.#sessions.values()) session.settingsChanged()
  }
}

function noLongerLeads(): UserError {
  return new UserError('unavailable', 'this manager no longer leads')
}

/** A message that is handed on unread: its reader is at the other end. */
function messageFrom(value: unknown): Message {
  const fields = new Fields('message', value)
  const { bytes, ...rest } = fields.all()
  return {
    ...rest,
    type: fields.text('type', 100),
    ...(bytes instanceof Uint8Array ? { bytes } : {}),
  }
}

function idOf(known: ClusterNode | undefined): NodeId {
  if (known) return known.id
  throw new UserError('internal', 'the table of authorisation let a stranger through')
}
