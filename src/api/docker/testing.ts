/** A cluster of one node without containers, on a unix socket: for tests of the API, and for trying it by hand. */
import { mkdtemp, rm } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLog, UserError } from '../../base/index.ts'
import { openRealClock, realRandom } from '../../base/real-world.ts'
import {
  type Control,
  type InitRequest,
  initialNetworks,
  type NodeControl,
  openControl,
  type Sealer,
  type TokenSummary,
  type TokenWish,
} from '../../control/index.ts'
import {
  type AnyObject,
  type Cluster,
  type ClusterNode,
  type ClusterStatus,
  idFrom,
  isTerminal,
  mintId,
  type NodeId,
  noRestarts,
  type Sealed,
  type Task,
  type TaskId,
  type TaskState,
  type Workload,
} from '../../model/index.ts'
import { type Change, openMemoryStore, type Store } from '../../store/index.ts'
import type { LogLine, LogSource } from '../../wire/index.ts'
import type { DockerApiOptions, EngineReader } from './context.ts'
import { type DockerApi, openDockerApi } from './server.ts'

export interface Harness {
  readonly socketPath: string
  readonly host: string
  readonly api: DockerApi
  readonly engine: FakeEngine
  /** The store of the cluster; throws while there is none. */
  store(): Store
  control(): Control
  readonly nodeControl: NodeControl & { lock(): void; work(): void }
  /** Resolves once the fake loops have nothing to do. */
  settled(): Promise<void>
  close(): Promise<void>
}

export interface HarnessOptions {
  /** What the fake engine speaks. */
  readonly engineApiVersion?: string
  /** Begin with a cluster. */
  readonly inCluster?: boolean
  /** State in which new tasks end up. */
  readonly taskState?: TaskState
  /** Parts to take instead of the fake ones. */
  readonly parts?: Partial<
    Pick<DockerApiOptions, 'engine' | 'proxy' | 'attachments' | 'forward' | 'log' | 'logs'>
  >
}

/** Opens an API over a cluster in memory, whose tasks run as soon as they are wanted. */
export async function openHarness(options: HarnessOptions = {}): Promise<Harness> {
  const directory = await mkdtemp(join(tmpdir(), 'skep-api-'))
  const socketPath = join(directory, 'docker.sock')
  const clock = openRealClock()
  const engine = new FakeEngine(options.engineApiVersion ?? '1.50')
  const node = new FakeNode(options.taskState ?? 'running')
  const api = openDockerApi({
    control: () => node.control,
    node,
    logs: node.logs,
    proxy: engine.proxy,
    engine,
    attachments: {
      reserve: async ({ network, container, address }) => {
        engine.reserved.push(container)
        return {
          networkId: idFrom(network),
          address: address ?? '10.0.9.9',
          mac: '02:42:0a:00:09:09',
          engineNetwork: 'skep-att',
          nameservers: ['169.254.1.1'],
        }
      },
      release: async (_networkId, [container = '']) => {
        engine.released.push(container)
      },
    },
    examineNetworks: async ({ nodes, network }) => ({
      nodes: [
        { id: 'n1', name: nodes[0] ?? 'host-1', driftCount: 2, mtuBytes: 1500, clockAheadMs: 1 },
      ],
      findings: network ? [{ node: 'host-1', network, what: 'a flaw', next: 'Mend it.' }] : [],
      pathsTested: 2,
    }),
    explain: {
      workload: (_view, id) => ({ kind: 'service', id }),
      task: (_view, id) => ({ kind: 'task', id }),
    },
    checkTemplate: (text) => {
      if (text.includes('{{nope')) {
        throw new UserError('invalidInput', 'invalid template: {{nope')
      }
    },
    clock,
    random: realRandom,
    log: silentLog,
    skepVersion: '0.0.0-test',
    ...options.parts,
  })
  if (options.inCluster ?? true) await node.init(plainInit)
  api.clusterChanged()
  await api.listen({ path: socketPath })
  return {
    socketPath,
    host: `unix://${socketPath}`,
    api,
    engine,
    store: () => node.open().store,
    control: () => node.open(),
    nodeControl: node,
    settled: () => node.settled(),
    async close() {
      await api.close()
      await node.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly text: string
  /** The body as JSON; `undefined` when it is none. */
  readonly json: unknown
  /** The `message` of a refusal. */
  readonly message: string
}

/** One call to the API. A string or buffer is sent as it is, anything else as JSON. */
export async function call(
  harness: Harness,
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<HttpAnswer> {
  const isRaw = typeof body === 'string' || Buffer.isBuffer(body)
  const bytes = isRaw
    ? Buffer.from(body)
    : Buffer.from(body === undefined ? '' : JSON.stringify(body))
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = httpRequest(
      {
        socketPath: harness.socketPath,
        method,
        path,
        headers: {
          ...(bytes.length > 0
            ? { 'Content-Type': 'application/json', 'Content-Length': String(bytes.length) }
            : {}),
          ...headers,
        },
      },
      resolve,
    )
    request.on('error', reject)
    request.end(bytes)
  })
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(Buffer.from(chunk))
  const text = Buffer.concat(chunks).toString()
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    json = undefined
  }
  const found = field(json, 'message')
  const message = typeof found === 'string' ? found : ''
  return { status: answer.statusCode ?? 0, headers: answer.headers, text, json, message }
}

/** What lies at a path of field names and list positions; `undefined` where it ends early. */
export function field(value: unknown, ...path: readonly (string | number)[]): unknown {
  let at = value
  for (const name of path) {
    if (typeof at !== 'object' || at === null) return undefined
    at = Object.entries(at).find(([key]) => key === String(name))?.[1]
  }
  return at
}

const plainInit: InitRequest = {
  listenAddress: '0.0.0.0:2377',
  advertiseAddress: '192.0.2.1',
  dataPathAddress: '',
  dataPathPort: 0,
  forceNewCluster: false,
  availability: 'active',
  addressPools: [],
  subnetSize: 0,
  cluster: {
    labels: {},
    source: { dialect: 'docker', document: {} },
    spec: {
      taskHistoryLimit: 5,
      heartbeatPeriodMs: 5_000,
      nodeCertExpiryMs: 7_776_000_000,
      autoLock: false,
    },
  },
}

/** Hides nothing: it only shows that what is stored went through it. */
const fakeSealer: Sealer = {
  seal: (bytes, context) => ({
    keyId: context,
    nonce: '',
    ciphertext: Buffer.from(bytes.map((byte) => byte ^ 0x55)).toString('base64'),
  }),
  unseal: (sealed, context) => {
    if (sealed.keyId !== context) throw new Error('sealed for another object')
    return Buffer.from(sealed.ciphertext, 'base64').map((byte) => byte ^ 0x55)
  },
}

class FakeNode implements NodeControl {
  control: Control | undefined
  readonly #clock = openRealClock()
  readonly #taskState: TaskState
  #locked = false
  #works = false
  #nodeId = ''
  #tokens = 0
  #unlockKey: string | undefined
  #issued: TokenSummary[] = []
  #working: Promise<void> = Promise.resolve()
  #stop: (() => void) | undefined

  constructor(taskState: TaskState) {
    this.#taskState = taskState
  }

  readonly logs: LogSource = {
    logs: (taskId, options) => this.#logLines(taskId, options.tail),
  }

  async *#logLines(taskId: TaskId, tail: number | 'all'): AsyncIterable<LogLine> {
    const task = this.open().store.view.get('task', taskId)
    if (!task?.nodeId) return
    const lines = [`hello from ${taskId}\n`, 'second line\n']
    for (const text of tail === 'all' ? lines : lines.slice(Math.max(0, lines.length - tail))) {
      yield {
        taskId,
        nodeId: task.nodeId,
        stream: 'stdout',
        timestamp: '2026-01-01T00:00:00.000000001Z',
        details: {},
        data: Buffer.from(text),
      }
    }
  }

  open(): Control {
    if (!this.control) throw new Error('there is no cluster')
    return this.control
  }

  lock(): void {
    this.#locked = true
  }

  /** From now on a node without any part in managing. */
  work(): void {
    this.#works = true
  }

  state() {
    const isIn = this.control !== undefined
    return {
      localNodeState: this.#locked
        ? ('locked' as const)
        : isIn
          ? ('active' as const)
          : ('inactive' as const),
      nodeId: this.#nodeId,
      nodeAddress: isIn ? '192.0.2.1' : '',
      controlAvailable: isIn && !this.#locked && !this.#works,
      error: '',
      remoteManagers: isIn ? [{ nodeId: this.#nodeId, address: '192.0.2.1:2377' }] : [],
    }
  }

  async init(request: InitRequest): Promise<NodeId> {
    const store = await openMemoryStore({ clock: this.#clock })
    const nodeId: NodeId = mintId(realRandom)
    const sealed: Sealed = { keyId: '', nonce: '', ciphertext: '' }
    const meta = {
      namespace: 'default',
      version: 0,
      specVersion: 0,
      createdAtMs: 0,
      updatedAtMs: 0,
    }
    const root = {
      certificatePem: '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n',
      issuerSubject: 'AA==',
      issuerPublicKey: 'AA==',
    }
    const status: ClusterStatus = {
      root: { ...root, key: sealed },
      rootRotationInProgress: false,
      joinTokens: { worker: sealed, manager: sealed },
      addressPools: request.addressPools.length > 0 ? request.addressPools : ['10.0.0.0/8'],
      subnetSize: request.subnetSize || 24,
      dataPathPort: request.dataPathPort || 4789,
    }
    const cluster: Cluster = {
      kind: 'cluster',
      id: mintId(realRandom),
      ...meta,
      name: 'default',
      ...request.cluster,
      status,
    }
    const node: ClusterNode = {
      kind: 'node',
      id: nodeId,
      ...meta,
      name: 'testhost',
      labels: {},
      source: { dialect: 'skep', document: {} },
      spec: { role: 'manager', availability: request.availability },
      description: {
        hostname: 'testhost',
        platform: { architecture: 'x86_64', os: 'linux' },
        resources: { nanoCpus: 2e9, memoryBytes: 4e9, generic: [] },
        engine: {
          version: '28.2.2',
          apiVersion: '1.50',
          labels: {},
          plugins: [{ type: 'Network', name: 'overlay' }],
        },
        skepVersion: '0',
        tls: {
          trustRoot: root.certificatePem,
          issuerSubject: root.issuerSubject,
          issuerPublicKey: root.issuerPublicKey,
        },
        hostSubnets: [],
      },
      status: { state: 'ready', message: '', address: '192.0.2.1' },
      manager: { address: '192.0.2.1:2377', leader: true, reachability: 'reachable' },
    }
    const objects: readonly AnyObject[] = [cluster, node, ...initialNetworks(realRandom)]
    await store.commit(objects.map((object) => ({ type: 'create', object })))
    this.#nodeId = nodeId
    if (request.cluster.spec.autoLock) this.#unlockKey = `SWMKEY-1-${'a'.repeat(43)}`
    this.control = openControl({
      store,
      clock: this.#clock,
      random: realRandom,
      sealer: fakeSealer,
    })
    this.#stop = store.subscribe(() => this.#wake(store))
    this.#wake(store)
    await this.settled()
    return nodeId
  }

  async join(): Promise<void> {
    throw new UserError('invalidInput', 'invalid join token')
  }

  async leave(force: boolean): Promise<void> {
    if (!force) {
      throw new UserError(
        'notManager',
        'You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ',
      )
    }
    await this.close()
  }

  async close(): Promise<void> {
    this.#stop?.()
    await this.settled()
    await this.control?.store.close()
    this.control = undefined
    this.#nodeId = ''
  }

  async unlock(key: string): Promise<void> {
    if (key !== this.#unlockKey) {
      throw new UserError('forbidden', 'swarm could not be unlocked: invalid key provided')
    }
    this.#locked = false
  }

  async unlockKey(): Promise<string | undefined> {
    return this.#unlockKey
  }

  async joinTokens() {
    const secret = String(this.#tokens).padStart(25, '0')
    const digest = '1'.repeat(50)
    return { worker: `SWMTKN-1-${digest}-${secret}`, manager: `SWMTKN-1-${digest}-m${secret}` }
  }

  async rotateTokens(which: { readonly unlockKey: boolean }): Promise<void> {
    this.#tokens++
    if (which.unlockKey) this.#unlockKey = `SWMKEY-1-${String(this.#tokens).padStart(43, 'b')}`
  }

  async rotateRoot(): Promise<void> {
    this.#tokens++
  }

  async createToken(wish: TokenWish): Promise<TokenSummary & { readonly token: string }> {
    const { role, labels } = wish
    const made = { id: `t${this.#issued.length}`, role, labels, createdAtMs: 0 }
    this.#issued.push(made)
    return { ...made, token: (await this.joinTokens()).worker }
  }

  async listTokens(): Promise<readonly TokenSummary[]> {
    return this.#issued
  }

  async removeToken(id: string): Promise<void> {
    this.#issued = this.#issued.filter((token) => token.id !== id)
  }

  /** Resolves once the loop has nothing to do. */
  async settled(): Promise<void> {
    for (let before: Promise<void> | undefined; before !== this.#working; ) {
      before = this.#working
      await before
    }
  }

  #wake(store: Store): void {
    this.#working = this.#working.then(async () => {
      const changes = decide(store, this.#nodeId, this.#taskState, this.#clock.nowMs())
      if (changes.length === 0) return
      await store.commit(changes).catch((error: unknown) => {
        // Somebody was faster: their commit has rung again.
        if (!(error instanceof UserError)) throw error
      })
    })
  }
}

/** All loops in one: networks get a subnet, services their tasks, which run at once, and old tasks go. */
function decide(store: Store, nodeId: string, state: TaskState, nowMs: number): readonly Change[] {
  const { view } = store
  const changes: Change[] = []
  let subnet = 0
  for (const network of view.list('network')) {
    if (network.spec.predefined) continue
    const number = subnet++
    if (network.status.subnet) continue
    const status = {
      subnet: network.spec.ipam[0]?.subnet ?? `10.0.${number}.0/24`,
      gateway: network.spec.ipam[0]?.gateway ?? `10.0.${number}.1`,
      vni: 4096 + number,
    }
    changes.push({ type: 'update', object: { ...network, status } })
  }
  const node = view.get('node', nodeId)
  if (!node) return changes
  for (const endpoint of view.list('endpoint')) {
    let next = 30_000
    const ports = endpoint.spec.ports.map((port) => ({
      ...port,
      publishedPort: port.publishedPort || (port.publishMode === 'ingress' ? next++ : 0),
    }))
    const vips = endpoint.spec.networks.map(({ networkId }) => ({ networkId, address: '10.0.1.2' }))
    const status = { ports, vips: endpoint.spec.mode === 'vip' ? vips : [] }
    if (JSON.stringify(status) !== JSON.stringify(endpoint.status)) {
      changes.push({ type: 'update', object: { ...endpoint, status } })
    }
  }
  for (const workload of view.list('workload')) {
    changes.push(...decideTasks(store, workload, node, state, nowMs))
  }
  for (const task of view.list('task')) {
    if (view.get('workload', task.workloadId)) continue
    changes.push({ type: 'delete', kind: 'task', id: task.id, version: task.version })
  }
  return changes.slice(0, 2_000)
}

function decideTasks(
  store: Store,
  workload: Workload,
  node: ClusterNode,
  state: TaskState,
  nowMs: number,
): readonly Change[] {
  const { view } = store
  const changes: Change[] = []
  const { mode, revisionId, jobIteration } = workload.spec
  const wanted = view.get('revision', revisionId)
  const isJob = mode.type === 'replicatedJob' || mode.type === 'globalJob'
  const first = mode.type === 'replicatedJob' ? 0 : 1
  const count =
    mode.type === 'replicated'
      ? mode.replicas
      : mode.type === 'replicatedJob'
        ? mode.totalCompletions
        : 1
  const slots = new Set<number>()
  for (const task of view.tasksOfWorkload(workload.id)) {
    const isCurrent =
      view.get('revision', task.revisionId)?.templateHash === wanted?.templateHash &&
      (!isJob || task.jobIteration === jobIteration)
    if (task.desiredState === 'shutdown') continue
    const slot = task.slot ?? first
    if (isCurrent && slot < first + count) slots.add(slot)
    else if (!isTerminal(task.status.state) || isJob) {
      const status = {
        ...task.status,
        state: 'shutdown' as const,
        atMs: nowMs,
        message: 'shutdown',
      }
      changes.push({ type: 'update', object: { ...task, desiredState: 'shutdown', status } })
    }
  }
  for (let slot = first; slot < first + count; slot++) {
    if (slots.has(slot)) continue
    const isGlobal = mode.type === 'global' || mode.type === 'globalJob'
    const task: Task = {
      kind: 'task',
      id: mintId(realRandom),
      namespace: 'default',
      name: workload.name,
      labels: {},
      version: 0,
      specVersion: 0,
      createdAtMs: 0,
      updatedAtMs: 0,
      workloadId: workload.id,
      revisionId,
      ...(isGlobal ? { pinnedNodeId: node.id } : { slot }),
      nodeId: node.id,
      desiredState: isJob ? 'complete' : 'running',
      status: {
        state: isJob ? 'complete' : state,
        atMs: nowMs,
        message: isJob ? 'finished' : 'started',
        ready: !isJob,
        hostPorts: [],
        container: { containerId: 'c'.repeat(64), pid: 1 },
      },
      traffic: 'routable',
      addresses: (wanted?.template.networks ?? []).map(({ networkId }) => ({
        networkId,
        address: '10.0.1.7',
        mac: '02:42:0a:00:01:07',
      })),
      genericResources: [],
      restarts: noRestarts,
      ...(isJob ? { jobIteration } : {}),
    }
    changes.push({ type: 'create', object: task })
  }
  const { update } = workload.status
  if (changes.length === 0 && update && !update.state.toLowerCase().includes('completed')) {
    const isRollback = update.state.startsWith('rollback')
    const status = {
      ...workload.status,
      update: {
        ...update,
        state: isRollback ? ('rollbackCompleted' as const) : ('completed' as const),
        completedAtMs: nowMs,
        message: isRollback ? 'rollback completed' : 'update completed',
      },
    }
    changes.push({ type: 'update', object: { ...workload, status } })
  }
  return changes
}

/** An engine with nothing in it. Calls that are passed to it are kept, and answered with 404. */
export class FakeEngine implements EngineReader {
  readonly passed: { readonly method: string; readonly url: string; readonly body: string }[] = []
  readonly reserved: string[] = []
  readonly released: string[] = []
  /** Names of its own networks. */
  readonly local = new Map<string, Readonly<Record<string, string>>>([['bridge', {}]])
  /** Whether it does not answer. */
  away = false
  /** Status of the next passed calls. */
  status = 404
  readonly #apiVersion: string

  constructor(apiVersion: string) {
    this.#apiVersion = apiVersion
  }

  readonly proxy: DockerApiOptions['proxy'] = {
    handle: (request, response) => void this.#answer(request, response),
    checkContinue: (request, response) => {
      response.writeContinue()
      void this.#answer(request, response)
    },
    upgrade: (_request, socket) => {
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')
    },
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(Buffer.from(chunk))
    this.passed.push({
      method: request.method ?? '',
      url: request.url ?? '',
      body: Buffer.concat(chunks).toString(),
    })
    response.writeHead(this.status, { 'Content-Type': 'application/json' })
    response.end(`${JSON.stringify({ message: 'page not found' })}\n`)
  }

  async ping() {
    return {
      'api-version': this.#apiVersion,
      ostype: 'linux',
      server: 'Docker/28.2.2 (linux)',
      'docker-experimental': 'false',
      'builder-version': '2',
    }
  }

  async version() {
    return { Version: '28.2.2', ApiVersion: this.#apiVersion, Os: 'linux', Arch: 'amd64' }
  }

  async info() {
    if (this.away) throw new UserError('unavailable', 'the engine does not answer')
    return {
      ID: 'fake',
      Name: 'testhost',
      ServerVersion: '28.2.2',
      NCPU: 2,
      MemTotal: 4e9,
      OSType: 'linux',
      Architecture: 'x86_64',
      OperatingSystem: 'Fake',
      DockerRootDir: '/var/lib/docker',
    }
  }

  async events(_options: unknown, signal?: AbortSignal) {
    async function* quiet() {
      await new Promise<void>((resolve) => {
        if (signal?.aborted) resolve()
        else signal?.addEventListener('abort', () => resolve(), { once: true })
      })
      // The type of what would come, were there anything.
      yield* [] as Awaited<ReturnType<EngineReader['events']>> extends AsyncIterable<infer T>
        ? T[]
        : never
    }
    return quiet()
  }

  readonly containers: EngineReader['containers'] = {
    inspect: async (id) => {
      throw new UserError('notFound', `No such container: ${id}`)
    },
  }

  readonly networks: EngineReader['networks'] = {
    list: async ({ filters }) => {
      const label = filters?.['label']?.[0]
      return [...this.local]
        .filter(([, labels]) => {
          const [key = '', value] = label?.split('=') ?? []
          return label === undefined || labels[key] === value
        })
        .map(([name, labels]) => this.#network(name, labels))
    },
    inspect: async (name) => {
      const labels = this.local.get(name)
      if (!labels) throw new UserError('notFound', `network ${name} not found`)
      return this.#network(name, labels)
    },
    connect: async () => {},
    disconnect: async () => {},
    prune: async () => ({ NetworksDeleted: null }),
  }

  #network(name: string, labels: Readonly<Record<string, string>>) {
    return {
      Id: name,
      Name: name,
      Driver: 'bridge',
      Scope: 'local',
      Internal: false,
      Attachable: false,
      Ingress: false,
      EnableIPv6: false,
      IPAM: { Driver: 'default', Config: [] },
      Labels: labels,
      Containers: {},
    }
  }
}
