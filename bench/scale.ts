/**
 * The real manager (every loop, dispatcher, control and API, over the embedded store on disk) with thousands of nodes
 * whose agents are simulated: what a large cluster costs, and how that grows with it.
 *
 *   node bench/scale.ts [--nodes 500,5000] [--phases place,deploy,...] [--placed 100000] [--json]
 *
 * First 100,000 tasks are placed, on nodes that take them and report nothing. Then there are 30 tasks a node: services of 150 replicas, every tenth of them published, and a large one of two replicas a
 * node. Each size runs in a process of its own; a further process asks the API all the while, as clients do. Agents are
 * light ones (bench/support/light-agent.ts): 5,000 real ones in the manager's own process would be most of what is
 * measured. What they spend of its thread is printed as `agents`.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  createHistogram,
  monitorEventLoopDelay,
  PerformanceObserver,
  type RecordableHistogram,
} from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { openDockerApi } from '../src/api/docker/index.ts'
import { FakeEngine } from '../src/api/docker/testing.ts'
import { type Log, silentLog, UserError } from '../src/base/index.ts'
import { openRealClock, realRandom } from '../src/base/real-world.ts'
import { type Control, initialNetworks, openControl } from '../src/control/index.ts'
import { type Manager, startManager } from '../src/manager/index.ts'
import {
  type AnyObject,
  type ClusterNode,
  isStopWanted,
  mintId,
  type NetworkId,
  type NodeId,
  type Sealed,
  type TaskTemplate,
  type UpdatePolicy,
  type WorkloadId,
} from '../src/model/index.ts'
import {
  buildClusterSpec,
  buildContainer,
  buildNode,
  buildTemplate,
  buildUpdatePolicy,
} from '../src/model/testing.ts'
import {
  changesPerCommitMax,
  type LeaderEpoch,
  openSqliteStore,
  type Store,
} from '../src/store/index.ts'
import { agentsTime, LightAgent, sentToAgents } from './support/light-agent.ts'
import { Report } from './support/rows.ts'

const tasksPerNode = 30
const replicas = 150
const stepMs = 100
const clock = openRealClock()
const phaseNames = ['place', 'deploy', 'rest', 'loss', 'update', 'leader'] as const
type PhaseName = (typeof phaseNames)[number]

/** What one phase cost. */
interface Cost {
  readonly seconds: number
  readonly writes: number
  readonly commits: number
  /** Of the main thread and the store's, in seconds. */
  readonly processorSeconds: number
  /** Of that: of the main thread alone. */
  readonly mainSeconds: number
  /** Of that, in the simulated agents' own code. */
  readonly agentSeconds: number
  readonly loopDelayP99Ms: number
  readonly loopDelayMaxMs: number
  /** What the main thread spent at a stretch, by its own processor time: others on the machine are not in it. */
  readonly turnP99Ms: number
  readonly turnMaxMs: number
  readonly memoryMiB: number
  /** Collections of garbage, in which the main thread stood still: by the wall. */
  readonly collectingSeconds: number
  readonly collectionMaxMs: number
  /** To all nodes, before encryption. */
  readonly sentMiB: number
  readonly api: readonly Latencies[]
  /** Further figures by name and unit. */
  readonly more: readonly (readonly [string, string, number])[]
}

interface Latencies {
  readonly call: string
  readonly count: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
  /** Less what the client and the manager's main thread stood in line for a core: about what a free machine shows. */
  readonly ownP99Ms: number
  readonly ownMaxMs: number
}

type FromChild =
  | { readonly type: 'cost'; readonly phase: PhaseName; readonly cost: Cost }
  | { readonly type: 'latencies'; readonly latencies: readonly Latencies[] }

// ---- A cluster in this process ----

const log: Log = { ...silentLog, warn: (message, fields) => console.error(message, fields) }

class BenchCluster {
  readonly nodes: number
  readonly directory = mkdtempSync(join(tmpdir(), 'skep-scale-'))
  readonly agents: LightAgent[] = []
  readonly small: WorkloadId[] = []
  big: WorkloadId | undefined
  store!: Store & LeaderEpoch
  control!: Control
  manager!: Manager
  epoch = 0
  writes = 0
  commits = 0
  /** Tasks by how far they are. */
  readonly reached = { assigned: 0, running: 0 }
  /** Nodes that were lost, and how many tasks on them are still wanted. */
  readonly lost = { nodeIds: new Set<string>(), wanted: 0 }
  #onChange: () => void = () => {}

  constructor(nodes: number) {
    this.nodes = nodes
  }

  async open(isSilent: boolean): Promise<void> {
    this.store = await openSqliteStore({
      path: join(this.directory, 'store.db'),
      keys: [{ id: '0123456789abcdef', key: createSecretKey(randomBytes(32)) }],
      clock,
      log,
    })
    const nodes = Array.from({ length: this.nodes }, (_, index) => newNode(index))
    const networks = initialNetworks(realRandom).map((network) =>
      network.spec.ingress
        ? { ...network, spec: { ...network.spec, ipam: [{ subnet: '10.128.0.0/12' }] } }
        : network,
    )
    const objects: readonly AnyObject[] = [cluster(), ...networks, ...nodes]
    for (let at = 0; at < objects.length; at += changesPerCommitMax) {
      await this.store.commit(
        objects
          .slice(at, at + changesPerCommitMax)
          .map((object) => ({ type: 'create' as const, object })),
      )
    }
    this.store.subscribe(({ changes }) => {
      this.commits++
      this.writes += changes.length
      for (const { before, after } of changes) {
        const old = before?.kind === 'task' ? before : undefined
        const now = after?.kind === 'task' ? after : undefined
        if (old?.nodeId === undefined && now?.nodeId !== undefined) this.reached.assigned++
        this.reached.running += Number(isUp(now)) - Number(isUp(old))
        if (this.lost.nodeIds.size > 0)
          this.lost.wanted += Number(this.#isWantedThere(now)) - Number(this.#isWantedThere(old))
      }
      this.#onChange()
    })
    this.control = openControl({
      store: this.store,
      clock,
      random: realRandom,
      sealer: { seal: () => sealed, unseal: () => new Uint8Array() },
    })
    for (const node of nodes) {
      const { id: nodeId, description } = node
      const random = realRandom
      this.agents.push(new LightAgent({ nodeId, description, clock, random, stepMs, isSilent }))
    }
    await this.lead()
  }

  #isWantedThere(task: Extract<AnyObject, { kind: 'task' }> | undefined): boolean {
    return task?.nodeId !== undefined && this.lost.nodeIds.has(task.nodeId) && !isStopWanted(task)
  }

  /** Counts the wanted tasks of nodes that are lost from now on. */
  lose(nodeIds: readonly NodeId[]): void {
    this.lost.nodeIds = new Set(nodeIds)
    this.lost.wanted = 0
    for (const nodeId of nodeIds)
      for (const task of this.store.view.tasksOfNode(nodeId))
        this.lost.wanted += Number(this.#isWantedThere(task))
  }

  /** A new leader takes over, and every agent finds it. */
  async lead(): Promise<void> {
    this.epoch = await this.store.advanceEpoch()
    this.manager = startManager({
      store: this.store,
      epoch: this.epoch,
      unseal: () => new Uint8Array(),
      clock,
      random: realRandom,
      log,
    })
    const before = this.agents.map(({ fullTaken }) => fullTaken)
    for (const [at, agent] of this.agents.entries()) {
      agent.connect(this.manager.dispatcher)
      // Over a network no two come in the same moment.
      if (at % 20 === 19) await clock.sleep(0)
    }
    await this.until(() => this.agents.every(({ fullTaken }, at) => fullTaken > (before[at] ?? 0)))
  }

  async createNetwork(): Promise<NetworkId> {
    const { id } = await this.control.createNetwork({
      name: 'mesh',
      labels: {},
      spec: {
        driver: 'overlay',
        internal: false,
        attachable: false,
        ingress: false,
        ipv6: false,
        encrypted: false,
        options: {},
        ipam: [{ subnet: '10.64.0.0/12' }],
        predefined: false,
      },
      source: { dialect: 'docker', document: {} },
    })
    return id
  }

  async createService(
    name: string,
    count: number,
    over: {
      readonly network?: NetworkId
      readonly isPublished?: boolean
      readonly update?: Partial<UpdatePolicy>
    } = {},
  ): Promise<WorkloadId> {
    const networks =
      over.network === undefined
        ? []
        : [{ networkId: over.network, aliases: [], driverOptions: {} }]
    const { id } = await this.control.createWorkload({
      name,
      labels: {},
      mode: { type: 'replicated', replicas: count },
      update: buildUpdatePolicy(over.update),
      rollback: buildUpdatePolicy(),
      onNodeLoss: { type: 'replace' },
      endpoint: {
        mode: 'vip',
        networks,
        ports: over.isPublished
          ? [{ protocol: 'tcp', targetPort: 80, publishedPort: 0, publishMode: 'ingress' }]
          : [],
      },
      template: template('app:1', networks),
      source: dockerSource(name, count),
    })
    return id
  }

  /** Waits for a state of the cluster; looks after each commit and, for what is no commit, now and then. */
  async until(isReached: () => boolean): Promise<void> {
    const giveUpAtMs = performance.now() + 600_000
    while (!isReached()) {
      if (performance.now() > giveUpAtMs) {
        throw new Error(`not reached in 600 s: ${JSON.stringify(this.reached)}`)
      }
      const changed = new Promise<void>((resolve) => {
        this.#onChange = resolve
      })
      await Promise.race([changed, clock.sleep(5)])
    }
  }

  async close(): Promise<void> {
    for (const agent of this.agents) agent.disconnect()
    await this.manager.close()
    await this.store.close()
    rmSync(this.directory, { recursive: true })
  }
}

const sealed: Sealed = { keyId: '', nonce: '', ciphertext: '' }

function isUp(task: Extract<AnyObject, { kind: 'task' }> | undefined): boolean {
  return task?.status.state === 'running' && task.desiredState === 'running'
}

function newNode(index: number): ClusterNode {
  const node = buildNode({
    id: mintId(realRandom),
    hostname: `node-${index}`,
    nanoCpus: 64e9,
    memoryBytes: 256 * 2 ** 30,
    state: 'unknown',
  })
  return { ...node, labels: { zone: `z${index % 3}` } }
}

function template(image: string, networks: TaskTemplate['networks']): TaskTemplate {
  return buildTemplate({
    containers: [buildContainer({ image, env: ['A=b', 'C=d'] })],
    reservations: { nanoCpus: 1e7, memoryBytes: 2 ** 20, generic: [] },
    networks,
  })
}

function dockerSource(name: string, count: number) {
  return {
    dialect: 'docker',
    document: {
      Name: name,
      TaskTemplate: { ContainerSpec: { Image: 'app:1', Env: ['A=b', 'C=d'] } },
      Mode: { Replicated: { Replicas: count } },
    },
  } as const
}

function cluster(): AnyObject {
  return {
    kind: 'cluster',
    id: mintId(realRandom),
    namespace: 'default',
    name: 'default',
    labels: {},
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
    source: { dialect: 'docker', document: {} },
    spec: buildClusterSpec(),
    status: {
      root: { certificatePem: '', key: sealed, issuerSubject: '', issuerPublicKey: '' },
      rootRotationInProgress: false,
      joinTokens: { worker: sealed, manager: sealed },
      addressPools: ['10.0.0.0/8'],
      subnetSize: 24,
      dataPathPort: 4789,
    },
  }
}

function openApi(of: BenchCluster) {
  const refuse = async (): Promise<never> => {
    throw new UserError('unsupported', 'not in a benchmark')
  }
  const engine = new FakeEngine('1.50')
  return openDockerApi({
    control: () => of.control,
    examineNetworks: refuse,
    node: {
      state: () => ({
        localNodeState: 'active',
        nodeId: '',
        nodeAddress: '192.0.2.1',
        controlAvailable: true,
        error: '',
        remoteManagers: [],
      }),
      init: refuse,
      join: refuse,
      leave: refuse,
      unlock: refuse,
      unlockKey: refuse,
      joinTokens: refuse,
      rotateTokens: refuse,
      rotateRoot: refuse,
      createToken: refuse,
      listTokens: refuse,
      removeToken: refuse,
    },
    logs: { logs: () => (async function* () {})() },
    proxy: engine.proxy,
    engine,
    attachments: { reserve: refuse, release: refuse },
    explain: { workload: () => undefined, task: () => undefined },
    checkTemplate: () => {},
    clock,
    random: realRandom,
    log: silentLog,
    skepVersion: 'bench',
  })
}

// ---- One size, in a process of its own ----

async function measure(nodes: number, wanted: ReadonlySet<PhaseName>): Promise<void> {
  if (wanted.has('place')) await measurePlacing(nodes)
  if (wanted.size === 1 && wanted.has('place')) return
  const of = new BenchCluster(nodes)
  await of.open(false)
  const api = openApi(of)
  api.clusterChanged()
  const socketPath = join(of.directory, 'api.sock')
  await api.listen({ path: socketPath })
  const probed = await createByApi(socketPath, 'probed', replicas)
  await of.until(() => of.reached.running === replicas)
  const probe = await startProbe(socketPath, probed)
  const phase = async (name: PhaseName, work: () => Promise<Cost['more']>) => {
    if (wanted.has(name) || name === 'deploy') tell(name, await costOf(of, probe, work))
  }
  const tasks = nodes * tasksPerNode
  const bigReplicas = nodes * 2

  await phase('deploy', async () => {
    const network = await of.createNetwork()
    const startedMs = performance.now()
    const assignedBefore = of.reached.assigned
    of.big = await of.createService('big', bigReplicas, {
      network,
      update: { parallelism: Math.ceil(bigReplicas / 20), monitorMs: 1_000 },
    })
    let left = tasks - bigReplicas - replicas
    for (let number = 0; left > 0; number++) {
      const count = Math.min(replicas, left)
      left -= count
      const isPublished = number % 10 === 0
      of.small.push(await of.createService(`svc${number}`, count, { isPublished }))
    }
    await of.until(() => of.reached.assigned - assignedBefore >= tasks - replicas)
    const assignedMs = performance.now() - startedMs
    await of.until(() => of.reached.running >= tasks)
    return [['placed, agents at work', 'tasks/s', (tasks - replicas) / (assignedMs / 1000)]]
  })

  await phase('rest', async () => {
    // What was started is watched for a while; at rest is what comes after.
    await clock.sleep(8_000)
    probe.send('pause')
    const before = process.cpuUsage()
    const writesBefore = of.writes
    const restMs = 10_000
    await clock.sleep(restMs)
    const { user, system } = process.cpuUsage(before)
    probe.send('go on')
    return [
      ['of one core', '%', (user + system) / restMs / 10],
      ['writes', '', of.writes - writesBefore],
    ]
  })

  await phase('loss', async () => {
    const lost = of.agents.slice(0, nodes / 10)
    const lostIds = [...of.store.view.list('node')].slice(0, nodes / 10).map(({ id }) => id)
    for (const agent of lost) agent.disconnect()
    // What follows when their heartbeats stop; how long they have to be silent first is left out.
    const changes = lostIds.flatMap((id) => {
      const node = of.store.view.get('node', id)
      const status = {
        state: 'down',
        message: 'heartbeat failure',
        sinceMs: clock.nowMs(),
      } as const
      return node
        ? [{ type: 'update' as const, object: { ...node, status: { ...node.status, ...status } } }]
        : []
    })
    of.lose(lostIds)
    const { wanted } = of.lost
    await of.store.commit(changes, { fence: of.epoch })
    // What is still taken for running is on lost nodes as long as it is wanted there.
    await of.until(() => of.lost.wanted === 0 && of.reached.running >= tasks)
    of.lost.nodeIds.clear()
    return [['tasks on lost nodes', '', wanted]]
  })

  await phase('update', async () => {
    const id = of.big
    if (id === undefined) throw new Error('nothing was deployed')
    const workload = of.store.view.get('workload', id)
    const revision = workload && of.store.view.get('revision', workload.spec.revisionId)
    if (!workload || !revision?.declared) throw new Error('the service is gone')
    const { declared } = revision
    const startedMs = performance.now()
    await of.control.updateWorkload(
      { id, version: workload.specVersion, auth: { from: 'current' } },
      () => ({
        ...declared,
        name: workload.name,
        template: template('app:2', revision.template.networks),
        source: workload.source,
      }),
    )
    await of.until(() => of.store.view.get('workload', id)?.status.update?.state === 'completed')
    return [['replaced', 'tasks/s', (bigReplicas / (performance.now() - startedMs)) * 1000]]
  })

  await phase('leader', async () => {
    await of.manager.close()
    await of.lead()
    const sessionsMs = performance.now()
    await of.createService('after', replicas)
    await of.until(() => of.reached.running >= tasks + replicas)
    return [['first service after it', 's', (performance.now() - sessionsMs) / 1000]]
  })

  probe.kill()
  await api.close()
  await of.close()
}

/** How fast tasks are created, given addresses, placed and sent, durably, with nodes that say nothing about them. */
async function measurePlacing(nodes: number): Promise<void> {
  const of = new BenchCluster(nodes)
  await of.open(true)
  const tasks = placedTasks
  const cost = await costOf(of, undefined, async () => {
    const startedMs = performance.now()
    const mainBefore = process.threadCpuUsage()
    const services = Math.ceil(tasks / replicas)
    for (let number = 0; number < services; number++)
      await of.createService(`svc${number}`, replicas)
    await of.until(() => of.reached.assigned >= services * replicas)
    const { user, system } = process.threadCpuUsage(mainBefore)
    return [
      ['placed', 'tasks/s', (services * replicas) / ((performance.now() - startedMs) / 1000)],
      ['placed, by the main thread', 'tasks/s', (services * replicas) / ((user + system) / 1e6)],
    ]
  })
  tell('place', cost)
  await of.close()
}

/** How often the main thread's processor time is read, in ms. */
const turnLookMs = 5

/** Looks every few ms at what the main thread has spent since: much more than that was one long turn. */
function watchTurns(): () => RecordableHistogram {
  const histogram = createHistogram()
  let before = process.threadCpuUsage()
  const timer = setInterval(() => {
    const { user, system } = process.threadCpuUsage(before)
    before = process.threadCpuUsage()
    histogram.record(Math.max(1, Math.round(user + system)))
  }, turnLookMs)
  return () => {
    clearInterval(timer)
    return histogram
  }
}

function watchCollections(): () => { readonly seconds: number; readonly maxMs: number } {
  let totalMs = 0
  let maxMs = 0
  const observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) {
      totalMs += duration
      maxMs = Math.max(maxMs, duration)
    }
  })
  observer.observe({ entryTypes: ['gc'] })
  return () => {
    observer.disconnect()
    return { seconds: totalMs / 1000, maxMs }
  }
}

async function costOf(
  of: BenchCluster,
  probe: ChildProcess | undefined,
  work: () => Promise<Cost['more']>,
): Promise<Cost> {
  if (probe) await latenciesOf(probe)
  const delay = monitorEventLoopDelay({ resolution: 5 })
  delay.enable()
  const endTurns = watchTurns()
  const endCollections = watchCollections()
  const mainBefore = process.threadCpuUsage()
  const processorBefore = process.cpuUsage()
  const agentsBefore = agentsTime.spentMs
  const { writes, commits } = of
  const sentBefore = sentToAgents.bytes
  const startedMs = performance.now()
  const more = await work()
  const seconds = (performance.now() - startedMs) / 1000
  delay.disable()
  const turns = endTurns()
  const collections = endCollections()
  const main = process.threadCpuUsage(mainBefore)
  const { user, system } = process.cpuUsage(processorBefore)
  return {
    seconds,
    writes: of.writes - writes,
    commits: of.commits - commits,
    processorSeconds: (user + system) / 1e6,
    mainSeconds: (main.user + main.system) / 1e6,
    turnP99Ms: turns.percentile(99) / 1e3,
    turnMaxMs: turns.max / 1e3,
    collectingSeconds: collections.seconds,
    collectionMaxMs: collections.maxMs,
    agentSeconds: (agentsTime.spentMs - agentsBefore) / 1000,
    loopDelayP99Ms: delay.percentile(99) / 1e6,
    loopDelayMaxMs: delay.max / 1e6,
    memoryMiB: process.memoryUsage().rss / 2 ** 20,
    sentMiB: (sentToAgents.bytes - sentBefore) / 2 ** 20,
    api: probe ? await latenciesOf(probe) : [],
    more,
  }
}

function tell(phase: PhaseName, cost: Cost): void {
  process.send?.({ type: 'cost', phase, cost } satisfies FromChild)
}

// ---- The client, in a process of its own ----

/** A client's calls come one after the other, with this pause between, in ms. */
const probePauseMs = 100

async function startProbe(socketPath: string, serviceId: string): Promise<ChildProcess> {
  const probe = fork(import.meta.filename, [], {
    env: { ...process.env, SKEP_BENCH_PROBE: JSON.stringify([socketPath, serviceId]) },
    execArgv: [],
  })
  await latenciesOf(probe)
  return probe
}

/** The latencies since the last time. */
function latenciesOf(probe: ChildProcess): Promise<readonly Latencies[]> {
  return new Promise((resolve) => {
    probe.once('message', (message) => {
      const { latencies } = message as Extract<FromChild, { type: 'latencies' }>
      resolve(latencies)
    })
    probe.send('collect')
  })
}

function record(to: Map<string, RecordableHistogram>, call: string, tookMs: number): void {
  const histogram = to.get(call) ?? createHistogram()
  to.set(call, histogram)
  histogram.record(Math.max(1, Math.round(tookMs * 1e3)))
}

/** What the main threads of this process and of its parent have stood in line for a core so far, in ms. */
function queuedForCoreMs(): number {
  let queuedNs = 0
  for (const pid of [process.pid, process.ppid]) {
    // Time on a core, time in line for one, in ns, and how often.
    const [, inLine] = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')
    queuedNs += Number(inLine)
  }
  return queuedNs / 1e6
}

async function askAllTheWhile(socketPath: string, serviceId: string): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ service: [serviceId] }))
  const histograms = new Map<string, RecordableHistogram>()
  const own = new Map<string, RecordableHistogram>()
  let isPaused = false
  process.on('message', (message) => {
    if (message !== 'collect') {
      isPaused = message === 'pause'
      return
    }
    const latencies = [...histograms].map(([call, histogram]) => ({
      call,
      count: histogram.count,
      p50Ms: histogram.percentile(50) / 1e3,
      p99Ms: histogram.percentile(99) / 1e3,
      maxMs: histogram.max / 1e3,
      ownP99Ms: (own.get(call)?.percentile(99) ?? 0) / 1e3,
      ownMaxMs: (own.get(call)?.max ?? 0) / 1e3,
    }))
    histograms.clear()
    own.clear()
    process.send?.({ type: 'latencies', latencies } satisfies FromChild)
  })
  const timed = async (call: string, work: () => Promise<string>): Promise<string> => {
    const startedMs = performance.now()
    const queuedMs = queuedForCoreMs()
    const text = await work()
    const tookMs = performance.now() - startedMs
    record(histograms, call, tookMs)
    record(own, call, tookMs - (queuedForCoreMs() - queuedMs))
    return text
  }
  let count = 0
  for (;;) {
    await clock.sleep(probePauseMs)
    if (isPaused) continue
    const path = `/services/${serviceId}`
    const text = await timed('service inspect', () => ask(socketPath, 'GET', path))
    await timed('service ps', () => ask(socketPath, 'GET', `/tasks?filters=${filters}`))
    const { Spec: spec, Version: version } = JSON.parse(text)
    const body = JSON.stringify({ ...spec, Labels: { count: String(count++) } })
    const update = `${path}/update?version=${version.Index}`
    await timed('service update', () => ask(socketPath, 'POST', update, body))
  }
}

/** As a client declares it, so that the client's later changes of labels replace no task. */
async function createByApi(socketPath: string, name: string, count: number): Promise<string> {
  const { document } = dockerSource(name, count)
  const text = await ask(socketPath, 'POST', '/services/create', JSON.stringify(document))
  return JSON.parse(text).ID
}

function ask(socketPath: string, method: string, path: string, body = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = body === '' ? {} : { 'Content-Type': 'application/json' }
    const sent = request({ socketPath, method, path, headers }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
      answer.once('end', () => {
        if (answer.statusCode === 200 || answer.statusCode === 201) resolve(text)
        else reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`))
      })
    })
    sent.once('error', reject)
    sent.end(body)
  })
}

// ---- All sizes ----

type Costs = ReadonlyMap<PhaseName, Cost>

function runSize(nodes: number, phases: string): Promise<Costs> {
  const costs = new Map<PhaseName, Cost>()
  const args = ['--measure', String(nodes), '--phases', phases, '--placed', String(placedTasks)]
  const child = fork(import.meta.filename, args, {
    execArgv: ['--max-old-space-size=7500', ...process.execArgv],
  })
  child.on('message', (message) => {
    const { phase, cost } = message as Extract<FromChild, { type: 'cost' }>
    costs.set(phase, cost)
  })
  return new Promise((resolve, reject) => {
    child.once('exit', (code) =>
      code === 0 ? resolve(costs) : reject(new Error(`${nodes} nodes: it ended with code ${code}`)),
    )
  })
}

function report(to: Report, nodes: number, costs: Costs, baseline: Costs | undefined): void {
  for (const [phase, cost] of costs) {
    const small = baseline?.get(phase)
    const add = (figure: string, unit: string, value: number, base?: number) =>
      to.add(`${phase}, ${nodes} nodes: ${figure}`, unit, value, base)
    if (phase !== 'rest') add('time', 's', cost.seconds, small?.seconds)
    for (const [figure, unit, value] of cost.more) add(figure, unit, value)
    add('writes', '', cost.writes, small?.writes)
    add('commits', '', cost.commits, small?.commits)
    add('sent to nodes', 'MiB', cost.sentMiB, small?.sentMiB)
    add('processor', 's', cost.processorSeconds, small?.processorSeconds)
    add('of it the main thread', 's', cost.mainSeconds, small?.mainSeconds)
    add('of that agents', 's', cost.agentSeconds)
    add('collecting garbage', 's', cost.collectingSeconds, small?.collectingSeconds)
    add('longest collection', 'ms', cost.collectionMaxMs, small?.collectionMaxMs)
    add('turn p99, by processor time', 'ms', cost.turnP99Ms, small?.turnP99Ms)
    add('turn max, by processor time', 'ms', cost.turnMaxMs, small?.turnMaxMs)
    add('event loop p99', 'ms', cost.loopDelayP99Ms, small?.loopDelayP99Ms)
    add('event loop max', 'ms', cost.loopDelayMaxMs, small?.loopDelayMaxMs)
    add('memory', 'MiB', cost.memoryMiB, small?.memoryMiB)
    for (const { call, count, p50Ms, p99Ms, maxMs, ownP99Ms, ownMaxMs } of cost.api) {
      add(`${call}`, 'calls', count)
      add(`${call} p50`, 'ms', p50Ms)
      add(`${call} p99`, 'ms', p99Ms)
      add(`${call} max`, 'ms', maxMs)
      add(`${call} p99, less waits for a core`, 'ms', ownP99Ms)
      add(`${call} max, less waits for a core`, 'ms', ownMaxMs)
    }
  }
}

/** The power of the cluster's size that a figure grows with: 1 is in proportion. */
function exponent(small: number, large: number, times: number): number {
  return Math.log(large / small) / Math.log(times)
}

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    nodes: { type: 'string', default: '500,5000' },
    phases: { type: 'string', default: phaseNames.join(',') },
    measure: { type: 'string' },
    placed: { type: 'string', default: '100000' },
  },
})
/** Tasks of the phase that places as many on any number of nodes. */
const placedTasks = Number(values.placed)
// One whose parent was ended has nobody to tell.
process.once('disconnect', () => process.exit())
const probeOptions = process.env['SKEP_BENCH_PROBE']
if (probeOptions !== undefined) {
  const [socketPath, serviceId] = JSON.parse(probeOptions)
  await askAllTheWhile(socketPath, serviceId)
} else if (values.measure !== undefined) {
  const wanted = phaseNames.filter((name) => values.phases.split(',').includes(name))
  await measure(Number(values.measure), new Set(wanted))
  process.disconnect?.()
} else {
  const to = new Report('scale', values.json)
  let smallest: { readonly nodes: number; readonly costs: Costs } | undefined
  for (const nodes of values.nodes.split(',').map(Number)) {
    const costs = await runSize(nodes, values.phases)
    report(to, nodes, costs, smallest?.costs)
    for (const [phase, cost] of costs) {
      const small = smallest?.costs.get(phase)
      if (!small || !smallest) continue
      const times = nodes / smallest.nodes
      const grows = (figure: string, of: (cost: Cost) => number) =>
        to.add(
          `${phase}: ${figure} grows with nodes to the power`,
          '',
          exponent(of(small), of(cost), times),
        )
      grows('time', ({ seconds }) => seconds)
      grows('processor', ({ processorSeconds }) => processorSeconds)
      grows('main thread', ({ mainSeconds }) => mainSeconds)
      grows('memory', ({ memoryMiB }) => memoryMiB)
    }
    smallest ??= { nodes, costs }
  }
}
