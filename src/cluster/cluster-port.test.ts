import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Clock, silentLog, UserError } from '../base/index.ts'
import { openRealClock, realRandom } from '../base/real-world.ts'
import { clusterOf, openControl, type TokenWish } from '../control/index.ts'
import { Dispatcher } from '../dispatcher/index.ts'
import { type Cluster, type ClusterStatus, idFrom, type NodeId } from '../model/index.ts'
import { buildClusterSpec, buildNode } from '../model/testing.ts'
import { simulatedDescription } from '../runtime/simulated-runtime.ts'
import {
  createNodeKey,
  createRootCa,
  issueNodeCertificate,
  type Keyring,
  openKeyring,
} from '../security/index.ts'
import { nextCommit, openMemoryStore, type Store } from '../store/index.ts'
import type { Session } from '../wire/index.ts'
import { standingByCall } from './authorisation.ts'
import { Authority } from './authority.ts'
import { type ClusterPort, openClusterPort } from './cluster-port.ts'
import { foundCluster } from './found-cluster.ts'
import { announceReturn, type Joined, joinCluster, renewCertificate, withdrawJoin } from './join.ts'
import { type CallName, callMessage, parseCall, type SessionSettings } from './messages.ts'
import { openTlsTransport, type TransportCredentials } from './real-transport.ts'
import { openReferral } from './referral.ts'
import { beginRotation, endRotation, isRotationDone } from './root-rotation.ts'
import { openRemoteLink } from './session-client.ts'
import { issueToken, openToken, withNewTokens } from './tokens.ts'

const realClock = openRealClock()
const description = {
  ...simulatedDescription('worker'),
  skepVersion: 'test',
  hostSubnets: [],
}

/** A manager's cluster port on loopback, over a store in memory: no engine, no agent. */
class TestManager {
  readonly clock: Clock & { skewMs: number }
  readonly nodeId: NodeId = idFrom('manager')
  store!: Store
  keyring!: Keyring
  authority!: Authority
  dispatcher!: Dispatcher
  port!: ClusterPort
  credentials!: TransportCredentials
  transport!: ReturnType<typeof openTlsTransport>
  isLeading = true
  isElected = false
  /** Leads instead of this one. */
  otherLeader: string | undefined
  takesManagers = false
  #folder = ''
  readonly #dispatchers: Dispatcher[] = []
  readonly #key = createNodeKey()

  constructor() {
    this.clock = {
      skewMs: 0,
      nowMs() {
        return realClock.nowMs() + this.skewMs
      },
      sleep: (ms, signal) => realClock.sleep(ms, signal),
    }
  }

  async start(): Promise<void> {
    const { clock } = this
    this.#folder = await mkdtemp(join(tmpdir(), 'skep-port-'))
    this.keyring = await openKeyring({ path: join(this.#folder, 'data.keys') })
    const store = await openMemoryStore({ clock })
    this.store = store
    const objects = await foundCluster(
      {
        cluster: {
          source: { dialect: 'docker', document: {} },
          spec: buildClusterSpec(),
          labels: {},
        },
        addressPools: [],
        subnetSize: 0,
        dataPathPort: 0,
        availability: 'active',
      },
      { nodeId: this.nodeId, hostname: 'm1', host: '127.0.0.1', address: '127.0.0.1:1' },
      { keyring: this.keyring, random: realRandom, nowMs: clock.nowMs() },
    )
    await store.commit(objects.map((object) => ({ type: 'create', object })))
    this.authority = new Authority({
      store,
      keyring: this.keyring,
      clock,
      random: realRandom,
      managersRefused: () =>
        this.takesManagers ? undefined : new UserError('unsupported', 'no managers here'),
    })
    await this.takeCertificate()
    this.lead(await store.advanceEpoch())
    this.transport = openTlsTransport({
      credentials: () => this.credentials,
      clock,
      log: silentLog,
    })
    this.port = await openClusterPort({
      transport: this.transport,
      listenAddress: '127.0.0.1:0',
      store,
      authority: this.authority,
      dispatcher: () => (this.isLeading ? this.dispatcher : undefined),
      leader: () => {
        const { nodeId, otherLeader } = this
        if (otherLeader) return { nodeId: idFrom('other'), address: otherLeader }
        return this.isLeading || this.isElected ? { nodeId, address: this.port.address } : undefined
      },
      own: { nodeId: this.nodeId, ask: () => {} },
      ownAddress: () => this.port.address,
      clock,
      random: realRandom,
      log: silentLog,
      skepVersion: 'test',
    })
    await this.change((status) => status)
    const node = store.view.get('node', this.nodeId)
    assert(node)
    await store.commit([
      {
        type: 'update',
        object: {
          ...node,
          manager: { address: this.port.address, leader: true, reachability: 'reachable' },
        },
      },
    ])
  }

  async takeCertificate(): Promise<void> {
    const admission = await this.authority.renewOwn(this.nodeId, this.#key.publicKeyPem)
    this.credentials = {
      clusterId: admission.clusterId,
      certificatePem: admission.certificatePem,
      keyPem: this.#key.keyPem,
      chainPem: clusterOf(this.store.view).status.crossCertificates ?? [],
      rootsPem: admission.rootsPem,
    }
    this.transport?.credentialsChanged()
  }

  /** Leads, or leads anew. */
  lead(fence: number): void {
    const { clock, nodeId: localNodeId, store } = this
    const unseal = () => new Uint8Array()
    const options = { store, unseal, clock, log: silentLog, fence, localNodeId }
    this.dispatcher = new Dispatcher(options)
    this.#dispatchers.push(this.dispatcher)
  }

  get cluster(): Cluster {
    return clusterOf(this.store.view)
  }

  async change(change: (status: ClusterStatus) => ClusterStatus): Promise<void> {
    const { cluster } = this
    await this.store.commit([
      { type: 'update', object: { ...cluster, status: change(cluster.status) } },
    ])
  }

  get workerToken(): string {
    return openToken(this.keyring, this.cluster, 'worker')
  }

  async issue(wish: TokenWish, id = 'abc'): Promise<string> {
    const issued = issueToken(this.keyring, this.cluster, id, wish, this.clock.nowMs())
    await this.change(() => issued.status)
    return issued.token
  }

  async rotateRoot(): Promise<void> {
    const root = await createRootCa(this.clock.nowMs())
    const old = this.authority.rootCa(this.cluster)
    const next = await beginRotation(this.keyring, this.cluster, old, root)
    await this.change(() => next(this.cluster, this.clock.nowMs()))
    await this.takeCertificate()
  }

  async stop(): Promise<void> {
    await this.port.close()
    for (const dispatcher of this.#dispatchers) dispatcher.close()
    await this.store.close()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

/** A host that joins and then speaks for itself. */
class TestNode {
  readonly keyPem = createNodeKey().keyPem
  readonly #manager: TestManager
  readonly #stop = new AbortController()
  credentials: TransportCredentials | undefined
  settings: SessionSettings | undefined
  /** Called when a manager asks it for something. */
  asked = () => {}
  nodeId: NodeId = idFrom('none')
  readonly transport = openTlsTransport({
    credentials: () => this.credentials,
    clock: realClock,
    log: silentLog,
  })

  constructor(manager: TestManager) {
    this.#manager = manager
  }

  get world() {
    return { transport: this.transport, clock: realClock, skepVersion: 'test' }
  }

  async join(token = this.#manager.workerToken): Promise<Joined> {
    const joined = await joinCluster(
      this.world,
      {
        token,
        keyPem: this.keyPem,
        hostname: 'worker',
        availability: 'active',
        advertiseAddress: '',
        addresses: [this.#manager.port.address],
      },
      this.#stop.signal,
    )
    this.nodeId = joined.admission.nodeId
    this.#take(joined.admission)
    return joined
  }

  async renew(): Promise<void> {
    const { signal } = this.#stop
    const addresses = [this.#manager.port.address]
    this.#take(await renewCertificate(this.world, this.keyPem, addresses, signal))
  }

  withdraw(): Promise<void> {
    return withdrawJoin(this.world, [this.#manager.port.address], this.#stop.signal)
  }

  #take({ clusterId, certificatePem, rootsPem }: Joined['admission']): void {
    this.credentials = {
      clusterId,
      certificatePem,
      keyPem: this.keyPem,
      chainPem: [],
      rootsPem,
    }
  }

  open(managers: readonly string[] = [this.#manager.port.address]): Promise<Session> {
    const link = openRemoteLink({
      ...this.world,
      random: realRandom,
      log: silentLog,
      managers: () => managers,
      learned: (settings) => {
        this.settings = settings
      },
      asked: () => this.asked(),
    })
    return link.open(this.nodeId, description, this.#stop.signal)
  }

  /** One call, and the manager's answer. */
  async call(call: CallName): Promise<Record<string, unknown>> {
    const stream = await this.transport.connect(
      this.#manager.port.address,
      this.credentials ? { type: 'cluster' } : { type: 'nobody' },
      AbortSignal.timeout(60_000),
    )
    try {
      const engine = { kind: 'engine' }
      const manager = { address: 'x', memberId: 'x', nodeId: 'x' }
      const request = call === 'relay' ? engine : {}
      const wish = { network: 'x', container: 'x', names: [] }
      const attachments = { wish, networkId: 'x', containers: [] }
      const fields = {
        description,
        requestId: 'x',
        csrPem: 'x',
        request,
        ...manager,
        ...attachments,
      }
      await stream.send({ ...callMessage({ call: 'root' }, 'test'), ...fields, call })
      const answer = await stream.receive(AbortSignal.timeout(60_000))
      assert(typeof answer === 'object' && answer !== null)
      return { ...answer }
    } finally {
      stream.close()
    }
  }

  close(): void {
    this.#stop.abort()
  }
}

describe('cluster port', () => {
  let manager: TestManager
  const nodes: TestNode[] = []
  const newNode = () => {
    const node = new TestNode(manager)
    nodes.push(node)
    return node
  }
  before(async () => {
    manager = new TestManager()
    await manager.start()
  })
  after(async () => {
    for (const node of nodes) node.close()
    await manager.stop()
  })

  test('a node that tells another address is found there from then on', async () => {
    const node = newNode()
    await node.join()
    const session = await node.open()
    await session.describe({ ...description, address: '192.0.2.7' })
    assert.equal(manager.store.view.get('node', node.nodeId)?.status.address, '192.0.2.7')
    await assert.rejects(session.describe({ ...description, address: 'elsewhere' }), {
      message: '"elsewhere" is no IP address that a node can be reached by',
    })
  })

  test('a node that was a manager sends others on, and is believed nothing else', async () => {
    const [former, node] = [newNode(), newNode()]
    await former.join()
    await node.join()
    const listenAddress = '127.0.0.1:0'
    const managers = () => [manager.port.address]
    const { transport } = former
    const world = { clock: realClock, log: silentLog, transport, listenAddress }
    const referral = await openReferral({ ...world, managers })
    const settings = { heartbeatMs: 500, silenceMs: 3_000, managers: [], rootsPem: [] }
    const lies = [
      { type: 'settings', settings },
      { type: 'refused', code: 'notFound', message: 'removed' },
      { type: 'settings' },
    ]
    const liar = await transport.listen(listenAddress, (stream) => {
      void stream.send(lies.shift() ?? { type: 'alive' })
    })
    try {
      const session = await node.open([referral.address])
      assert.equal((await session.next(AbortSignal.timeout(60_000))).node.id, node.nodeId)
      const noManager = { code: 'unavailable', message: /is no manager any more/ }
      while (lies.length > 0) await assert.rejects(node.open([liar.address]), noManager)
      const signal = AbortSignal.timeout(60_000)
      const renewal = renewCertificate(node.world, node.keyPem, [referral.address], signal)
      await assert.rejects(renewal, noManager)
      await renewCertificate(
        node.world,
        node.keyPem,
        [referral.address, manager.port.address],
        signal,
      )
      // Who is no node is told nothing.
      const stream = await newNode().transport.connect(referral.address, { type: 'nobody' }, signal)
      await stream.send(callMessage({ call: 'session', description, held: new Map() }, 'test'))
      const answer = JSON.stringify(await stream.receive(signal))
      assert.match(answer, /this node is no manager any more/)
      assert.ok(!answer.includes(manager.port.address))
    } finally {
      await referral.close()
      await liar.close()
    }
  })

  test('a host joins with the token, has a session, and is ready', async () => {
    const node = newNode()
    const { admission, localAddress } = await node.join()
    assert.equal(admission.nodeAddress, '127.0.0.1')
    assert.equal(localAddress, '127.0.0.1')
    const session = await node.open()
    const change = await session.next(AbortSignal.timeout(60_000))
    assert.equal(change.full, true)
    assert.equal(change.node.id, node.nodeId)
    assert.equal(manager.store.view.get('node', node.nodeId)?.status.state, 'ready')
    assert.deepEqual(
      node.settings?.managers.map(({ address }) => address),
      [manager.port.address],
    )
    session.close()
  })

  test('each way in which a token is no good has its own sentence', async () => {
    const old = manager.workerToken
    await manager.change(() =>
      withNewTokens(manager.keyring, manager.cluster, ['worker'], manager.clock.nowMs()),
    )
    const joinWith = (token: string) => newNode().join(token)
    await assert.rejects(joinWith(old), /was rotated at .* and is no longer taken/)
    const digest = manager.workerToken.split('-')[2]
    await assert.rejects(
      joinWith(`SWMTKN-1-${digest}-${'0'.repeat(25)}`),
      /is wrong: the cluster knows no such secret/,
    )
    await assert.rejects(
      joinWith(`SWMTKN-1-${'0'.repeat(50)}-${'0'.repeat(25)}`),
      /remote CA does not match fingerprint/,
    )
    await assert.rejects(joinWith('hello'), /invalid join token/)
    const brief = await manager.issue({ role: 'worker', labels: {}, lifeMs: 1 }, 'brief')
    await realClock.sleep(5)
    await assert.rejects(joinWith(brief), /\(brief\) expired at /)
    await assert.rejects(
      joinWith(openToken(manager.keyring, manager.cluster, 'manager')),
      /no managers here/,
    )
  })

  describe('a manager that joins and can not take up its part', () => {
    const nodeOf = ({ nodeId }: TestNode) => manager.store.view.get('node', nodeId)
    const joinAsManager = async (): Promise<TestNode> => {
      const node = newNode()
      await node.join(openToken(manager.keyring, manager.cluster, 'manager'))
      return node
    }
    before(() => {
      manager.takesManagers = true
    })
    after(() => {
      manager.takesManagers = false
      manager.clock.skewMs = 0
    })

    test('takes its join back, and is forgotten', async () => {
      const node = await joinAsManager()
      const known = nodeOf(node)
      assert.equal(known?.spec.role, 'manager')
      assert(known)
      // The leader has not heard of it yet.
      const part = { address: '127.0.0.1:9', leader: false, joining: true } as const
      const object = { ...known, manager: { ...part, reachability: 'unreachable' as const } }
      await manager.store.commit([{ type: 'update', object }])
      await node.withdraw()
      assert.equal(nodeOf(node), undefined)
    })

    test('is a worker that is down when it counted already', async () => {
      const node = await joinAsManager()
      const known = nodeOf(node)
      assert(known)
      const part = { address: '127.0.0.1:9', leader: false, reachability: 'reachable' } as const
      await manager.store.commit([{ type: 'update', object: { ...known, manager: part } }])
      await node.withdraw()
      assert.equal(nodeOf(node)?.spec.role, 'worker')
      assert.equal(nodeOf(node)?.status.state, 'down')
    })

    test('makes way for the next join of the same host when it could say nothing', async () => {
      const crashed = await joinAsManager()
      const early = await joinAsManager()
      assert(nodeOf(crashed), 'the first one may still be on its way')
      manager.clock.skewMs = 100_000
      const late = await joinAsManager()
      assert.deepEqual(
        [crashed, early, late].map((node) => nodeOf(node) !== undefined),
        [false, false, true],
      )
      await late.withdraw()
    })
  })

  test('a host is told when the manager speaks a version that it does not', async () => {
    const other = openTlsTransport({
      credentials: () => manager.credentials,
      clock: realClock,
      log: silentLog,
    })
    const listener = await other.listen('127.0.0.1:0', (stream) => {
      void stream.receive().then(() =>
        stream.send({
          ...{ type: 'root', certificatePem: '', nowMs: 0 },
          ...{ protocol: 99, skepVersion: '9.9.9' },
        }),
      )
    })
    const wish = {
      ...{ token: manager.workerToken, keyPem: createNodeKey().keyPem, hostname: 'x' },
      ...{ availability: 'active' as const, advertiseAddress: '', addresses: [listener.address] },
    }
    await assert.rejects(
      joinCluster(newNode().world, wish, AbortSignal.timeout(60_000)),
      /Skep 9\.9\.9 there is newer than this host understands/,
    )
    await listener.close()
  })

  test('a token with labels and a bound gives the labels, and lets in so many', async () => {
    const labels = { zone: 'a' }
    const token = await manager.issue({ role: 'worker', labels, usesMax: 2 }, 'twice')
    const results = await Promise.allSettled([1, 2, 3, 4].map(() => newNode().join(token)))
    const joined = results.flatMap((result) =>
      result.status === 'fulfilled' ? [result.value] : [],
    )
    assert.equal(joined.length, 2)
    for (const { admission } of joined) {
      assert.deepEqual(manager.store.view.get('node', admission.nodeId)?.labels, labels)
    }
    await assert.rejects(newNode().join(token), /\(twice\) is used up/)
  })

  test('clocks far apart, and addresses where no manager is, are told as such', async () => {
    manager.clock.skewMs = 3 * 3_600_000
    await assert.rejects(newNode().join(), /this host's clock is 180 min behind/)
    manager.clock.skewMs = 0
    const wish = {
      token: manager.workerToken,
      keyPem: createNodeKey().keyPem,
      hostname: 'x',
      availability: 'active' as const,
      advertiseAddress: '',
    }
    const { signal } = new AbortController()
    await assert.rejects(
      joinCluster(newNode().world, { ...wish, addresses: ['127.0.0.1:1'] }, signal),
      /nobody listens on 127.0.0.1:1/,
    )
  })

  test('a host of another version of the protocol is told which side is too old', async () => {
    const node = newNode()
    const stream = await node.transport.connect(
      manager.port.address,
      { type: 'nobody' },
      AbortSignal.timeout(60_000),
    )
    await stream.send({ type: 'call', call: 'root', protocol: 0, skepVersion: '0.0.1' })
    const answer = await stream.receive()
    assert.match(JSON.stringify(answer), /Skep 0.0.1 there is too old for this manager/)
    stream.close()
  })

  test('a stolen worker certificate opens what workers need, and nothing of the managers', async () => {
    const node = newNode()
    await node.join()
    for (const [call, standing] of Object.entries(standingByCall)) {
      const answer = await node.call(call as CallName)
      const isForbidden = answer['type'] === 'refused' && answer['code'] === 'forbidden'
      assert.equal(isForbidden, standing === 'manager', `${call}: ${JSON.stringify(answer)}`)
    }
  })

  test('a manager gets the data keys', async () => {
    const other = newNode()
    other.credentials = manager.credentials
    const answer = await other.call('keys')
    assert.deepEqual(answer, { type: 'keys', text: manager.keyring.exportKeys() })
  })

  test('without a certificate only the root, and joining with a token, can be asked for', async () => {
    for (const [call, standing] of Object.entries(standingByCall)) {
      const answer = await newNode().call(call as CallName)
      const isForbidden = answer['type'] === 'refused' && answer['code'] === 'forbidden'
      assert.equal(isForbidden, standing !== 'anyone', `${call}: ${JSON.stringify(answer)}`)
    }
  })

  test('a certificate of this root for a node with another key is refused', async () => {
    const node = newNode()
    await node.join()
    const thief = newNode()
    const key = createNodeKey()
    const { cluster } = manager
    thief.credentials = {
      clusterId: cluster.id,
      keyPem: key.keyPem,
      chainPem: [],
      rootsPem: [cluster.status.root.certificatePem],
      certificatePem: await issueNodeCertificate({
        root: manager.authority.rootCa(cluster),
        nodeId: node.nodeId,
        role: 'manager',
        clusterId: cluster.id,
        key,
        expiryMs: 60_000,
        nowMs: realClock.nowMs(),
      }),
    }
    for (const call of ['renew', 'session', 'keys'] as const) {
      const answer = await thief.call(call)
      assert.match(JSON.stringify(answer), /is known by another key/)
    }
  })

  test('a node that looks for a leader waits while one is elected', async () => {
    const node = newNode()
    await node.join()
    manager.isLeading = false
    manager.port.leadershipChanged()
    const opening = node.open()
    // Its question arrives before the answer is there.
    await realClock.sleep(200)
    // It is elected before it begins.
    manager.isElected = true
    manager.port.leadershipChanged()
    await realClock.sleep(50)
    manager.isLeading = true
    manager.port.leadershipChanged()
    const session = await opening
    session.close()
  })

  test('a session that an earlier leadership still began does not take the place of the one that counts', async () => {
    const node = newNode()
    await node.join()
    const begun = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    const { dispatcher } = manager
    const open = dispatcher.open.bind(dispatcher)
    dispatcher.open = async (...call) => {
      begun.resolve()
      await goOn.promise
      return open(...call)
    }
    const lateOne = node.open().then((session) => session.next(AbortSignal.timeout(60_000)))
    const late = assert.rejects(lateOne, { code: 'unavailable' })
    await begun.promise
    manager.lead(1)
    manager.port.leadershipChanged()
    const session = await node.open()
    goOn.resolve()
    await late
    const asked = new Promise<void>((resolve) => {
      node.asked = resolve
    })
    const stop = new AbortController()
    const asking = manager.port.ask(node.nodeId, { kind: 'engine' }, stop.signal)
    await Promise.race([asked, asking])
    stop.abort()
    await assert.rejects(asking, /was no longer waited for/)
    session.close()
  })

  test('whoever was elected is asked for what is on other nodes, whatever is stored of it yet', async () => {
    const asked: string[] = []
    const listen = (name: string) =>
      manager.transport.listen('127.0.0.1:0', (stream) => {
        void stream.receive().then((message) => {
          asked.push(`${name}: ${parseCall(message).call.call}`)
          stream.close()
        })
      })
    const [former, elected] = [await listen('former'), await listen('elected')]
    const standing = { address: former.address, leader: true, reachability: 'reachable' } as const
    const object = buildNode({ id: 'former', manager: standing })
    await manager.store.commit([{ type: 'create', object }])
    manager.otherLeader = elected.address
    try {
      const signal = AbortSignal.timeout(60_000)
      const { stream } = await manager.port.ask(idFrom('elsewhere'), { kind: 'engine' }, signal)
      assert.equal(await stream.receive(signal), undefined)
      assert.deepEqual(asked, ['elected: relay'])
    } finally {
      manager.otherLeader = undefined
      await former.close()
      await elected.close()
    }
  })

  test('a node says that its daemon is there again, before it has a session', async () => {
    const node = newNode()
    await node.join()
    const returned: string[] = []
    manager.dispatcher.returning = (id) => void returned.push(id)
    const { signal } = new AbortController()
    await announceReturn(node.world, [manager.port.address], signal)
    assert.deepEqual(returned, [node.nodeId])
  })

  test('a node that is removed is cut off at once, and refused from then on', async () => {
    const node = newNode()
    await node.join()
    const session = await node.open()
    await session.next(AbortSignal.timeout(60_000))
    const control = openControl({
      store: manager.store,
      clock: realClock,
      random: realRandom,
      sealer: manager.keyring,
    })
    await assert.rejects(control.removeNode(node.nodeId, false), /is not down/)
    const next = session.next(AbortSignal.timeout(60_000))
    const cut = assert.rejects(next, { code: 'notFound' })
    await control.removeNode(node.nodeId, true)
    await cut
    await assert.rejects(node.open(), { code: 'notFound' })
  })

  test('a machine that was off past the end of its certificate comes back with its own key', async () => {
    const node = newNode()
    await node.join()
    const { cluster } = manager
    assert(node.credentials)
    const certificatePem = await issueNodeCertificate({
      root: manager.authority.rootCa(cluster),
      nodeId: node.nodeId,
      role: 'worker',
      clusterId: cluster.id,
      key: { publicKeyPem: publicKeyOf(node.keyPem) },
      expiryMs: -1_000,
      nowMs: realClock.nowMs(),
    })
    node.credentials = { ...node.credentials, certificatePem }
    await assert.rejects(node.open(), /has ended, or its root was replaced/)
    await node.renew()
    const session = await node.open()
    session.close()
  })

  test('the root is rotated while sessions stay; a node that was off twice follows the chain', async () => {
    const [present, absent] = [newNode(), newNode()]
    await present.join()
    await absent.join()
    const session = await present.open()
    await session.next(AbortSignal.timeout(60_000))
    const before = manager.cluster.status.root.certificatePem
    await manager.rotateRoot()
    while (present.settings?.renewWithinMs === undefined) await nextCommitOrTick(manager)
    assert.equal(present.settings.rootsPem.length, 2)
    assert.equal(isRotationDone(manager.cluster, manager.store.view.list('node')), false)
    await present.renew()
    while (present.settings.renewWithinMs !== undefined) await nextCommitOrTick(manager)
    await manager.change(() => endRotation(manager.cluster))
    await manager.rotateRoot()
    await manager.change(() => endRotation(manager.cluster))
    assert.notEqual(manager.cluster.status.root.certificatePem, before)
    // It trusts the first root only, and its certificate is of that root.
    await assert.rejects(absent.open(), /has ended, or its root was replaced/)
    await absent.renew()
    const again = await absent.open()
    again.close()
    session.close()
  })
})

async function nextCommitOrTick({ store, clock }: TestManager): Promise<void> {
  await Promise.race([nextCommit(store, clock), realClock.sleep(5)])
}

function publicKeyOf(keyPem: string): string {
  return createPublicKey(keyPem).export({ type: 'spki', format: 'pem' }).toString()
}
