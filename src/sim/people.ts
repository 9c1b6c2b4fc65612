import type { MemoryCall } from '../api/docker/index.ts'
import { Chance } from './chance.ts'
import { writtenBy, wrongWithLogs } from './checkers/logs.ts'
import { canary } from './checkers/secrets.ts'
import type { SimulatedCluster } from './cluster.ts'
import type { History } from './history.ts'
import type { Host } from './host.ts'
import type { Judge } from './judge.ts'
import type { Operation } from './linearizable.ts'
import { drawMode, drawService, type ServiceMode } from './services.ts'
import type { Trace } from './trace.ts'

/** How long a person waits for an answer, in true ms. */
const patienceMs = 20_000
const servicesMax = 5
const hostsMax = 6

interface Answer {
  readonly status: number
  readonly json: unknown
  readonly text: string
}

/** What a read tells of an object. */
interface Seen {
  readonly version: number
  readonly mark: string
  readonly spec: Record<string, unknown>
  readonly id: string
}

/** What people do to the cluster, one after the other: each asks, waits for the answer, thinks, and goes on. */
export class People {
  readonly counts = new Map<string, number>()
  /** A text that a client must never be sent was in an answer. */
  leaked: string | undefined
  isAsleep = false
  readonly #cluster: SimulatedCluster
  readonly #judge: Judge
  readonly #history: History
  readonly #trace: Trace
  readonly #services = new Map<string, ServiceMode>()
  readonly #networks = new Map<string, string>()
  readonly #secrets = new Map<string, string>()
  readonly #configs = new Map<string, string>()
  readonly #chance: Chance
  /** Machines on which somebody still waits for `swarm join`: nobody sends one away before it is there. */
  readonly #joining = new Set<Host>()
  #serial = 0

  constructor(cluster: SimulatedCluster, judge: Judge, history: History, trace: Trace) {
    this.#cluster = cluster
    this.#judge = judge
    this.#history = history
    this.#trace = trace
    this.#chance = Chance.of(cluster.seed, 'people')
  }

  /** Begins a person's day, which ends once everybody is asleep. */
  begin(number: number): void {
    void this.#live(Chance.of(this.#cluster.seed, `person ${number}`))
  }

  async #live(chance: Chance): Promise<void> {
    while (!this.isAsleep) {
      await this.#sleep(chance.between(400, 11_000))
      if (this.isAsleep) return
      const [name, work] = chance.weighted<readonly [string, () => Promise<void>]>([
        [
          this.#services.size < servicesMax ? 14 : 1,
          ['create a service', () => this.#create(chance)],
        ],
        [14, ['update a service', () => this.#update(chance)]],
        [12, ['scale a service', () => this.#scale(chance)]],
        [4, ['roll a service back', () => this.#rollBack(chance)]],
        [this.#services.size > 2 ? 5 : 1, ['remove a service', () => this.#remove(chance)]],
        [14, ['read a service', () => this.#readService(chance)]],
        [4, ['read logs', () => this.#readLogs(chance)]],
        [4, ['list', () => this.#list(chance)]],
        [3, ['drain a node', () => this.#setNode(chance, { Availability: 'drain' })]],
        [2, ['pause a node', () => this.#setNode(chance, { Availability: 'pause' })]],
        [7, ['activate a node', () => this.#setNode(chance, { Availability: 'active' })]],
        [4, ['label a node', () => this.#setNode(chance, {})]],
        [2, ['promote a node', () => this.#setNode(chance, { Role: 'manager' })]],
        [2, ['demote a node', () => this.#setNode(chance, { Role: 'worker' })]],
        [3, ['create a secret', () => this.#createFile(chance, 'secret')]],
        [3, ['create a config', () => this.#createFile(chance, 'config')]],
        [2, ['remove a secret', () => this.#removeFile(chance, 'secret')]],
        [2, ['remove a config', () => this.#removeFile(chance, 'config')]],
        [2, ['relabel a config', () => this.#relabel(chance)]],
        [3, ['create a network', () => this.#createNetwork(chance)]],
        [2, ['remove a network', () => this.#removeNetwork(chance)]],
        [2, ['join', () => this.#join(chance)]],
        [1, ['leave', () => this.#leave(chance)]],
      ])
      this.counts.set(name, (this.counts.get(name) ?? 0) + 1)
      await work()
    }
  }

  /** Everything is made active again and read once more: what was acknowledged must be there. */
  async tidyUp(): Promise<void> {
    for (const host of this.#cluster.hosts) {
      if (host.isRemoved) continue
      await this.#changeNode(host, () => ({ Availability: 'active' }))
    }
    for (const name of this.#services.keys()) await this.#read('services', name)
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#cluster.time.after(ms, resolve))
  }

  /** Undefined: no answer came. */
  async #call(
    method: MemoryCall['method'],
    url: string,
    body?: unknown,
  ): Promise<Answer | undefined> {
    const daemon = this.#chance.pick(this.#cluster.managers())
    const api = daemon?.manager?.api
    if (!daemon || !api) {
      await this.#sleep(500)
      return { status: 503, json: undefined, text: 'no manager runs' }
    }
    const answer = await new Promise<{ status: number; text: string } | undefined>((resolve) => {
      this.#cluster.time.after(patienceMs, () => resolve(undefined))
      daemon.process.post(() => {
        daemon.process
          .gate(api.call({ method, url: `/v1.41${url}`, ...(body === undefined ? {} : { body }) }))
          .then(resolve, () => resolve(undefined))
      })
    })
    const outcome = answer
      ? `${answer.status}${answer.status >= 300 ? ` ${answer.text.trim().slice(0, 160)}` : ''}`
      : 'no answer'
    this.#trace.say(`person: ${method} ${url} on ${daemon.process.name}: ${outcome}`)
    if (!answer) return undefined
    if (answer.text.includes(canary)) this.leaked = `${method} ${url} answered with a secret`
    return { ...answer, json: parse(answer.text) }
  }

  async #read(kind: 'services' | 'configs' | 'nodes', name: string): Promise<Seen | undefined> {
    const beganAt = this.#history.began()
    const answer = await this.#call('GET', `/${kind}/${name}`)
    const key = `${kind}/${name}`
    if (answer?.status === 404) {
      this.#history.ended(key, beganAt, { type: 'read', found: undefined }, true)
      return undefined
    }
    if (answer?.status !== 200) return undefined
    const seen = seenIn(answer.json)
    const { version, mark } = seen
    this.#history.ended(key, beganAt, { type: 'read', found: { mark, version } }, true)
    return seen
  }

  /** Sends a write, and records what its answer says of it. */
  async #write(
    key: string,
    operation: Operation,
    method: MemoryCall['method'],
    url: string,
    body?: unknown,
  ) {
    const beganAt = this.#history.began()
    const answer = await this.#call(method, url, body)
    const isRefused =
      answer !== undefined &&
      (answer.status < 500 || /out of sequence|no manager runs/.test(answer.text))
    const isDone = answer !== undefined && answer.status < 300
    if (isDone || !isRefused) this.#history.ended(key, beganAt, operation, isDone)
    return answer
  }

  async #create(chance: Chance): Promise<void> {
    const mode = chance.weighted<ServiceMode>([
      [8, 'replicated'],
      [3, 'global'],
      [2, 'replicatedJob'],
      [1, 'globalJob'],
    ])
    const name = this.#newName('s')
    const mark = `m${++this.#serial}`
    const body = drawService(chance, name, mark, mode, this.#surroundings())
    this.#services.set(name, mode)
    const key = `services/${name}`
    const answer = await this.#write(
      key,
      { type: 'create', mark },
      'POST',
      '/services/create',
      body,
    )
    if (answer && answer.status >= 400 && answer.status < 500) this.#services.delete(name)
  }

  /** No id begins like it: where nothing has the name any more, the API looks for an id that does. */
  #newName(kind: string): string {
    return `${kind}-${++this.#serial}`
  }

  #surroundings() {
    const named = (items: ReadonlyMap<string, string>) =>
      [...items].map(([name, id]) => ({ id, name }))
    return {
      networkIds: [...this.#networks.values()],
      secrets: named(this.#secrets),
      configs: named(this.#configs),
    }
  }

  #aService(chance: Chance): string | undefined {
    return chance.pick([...this.#services.keys()])
  }

  async #update(chance: Chance): Promise<void> {
    const name = this.#aService(chance)
    const mode = name && this.#services.get(name)
    const seen = name && (await this.#read('services', name))
    if (!name || !mode || !seen) return
    const mark = `m${++this.#serial}`
    const drawn = drawService(chance, name, mark, mode, this.#surroundings())
    // Half of the updates leave all but the program as it is.
    const body = chance.oneIn(2)
      ? { ...drawn, Mode: seen.spec['Mode'] }
      : { ...seen.spec, Labels: drawn['Labels'], TaskTemplate: withImageOf(seen.spec, drawn) }
    await this.#writeService(name, seen, mark, body)
  }

  async #scale(chance: Chance): Promise<void> {
    const replicated = [...this.#services].filter(
      ([, mode]) => mode === 'replicated' || mode === 'replicatedJob',
    )
    const [name, mode] = chance.pick(replicated) ?? []
    const seen = name && (await this.#read('services', name))
    if (!name || !mode || !seen) return
    const mark = `m${++this.#serial}`
    const body = {
      ...seen.spec,
      Labels: { ...labelsOf(seen.spec), mark },
      Mode: drawMode(chance, mode),
    }
    await this.#writeService(name, seen, mark, body)
  }

  async #writeService(
    name: string,
    { id, version }: Seen,
    mark: string,
    body: unknown,
  ): Promise<void> {
    const operation: Operation = { type: 'write', mark, version }
    await this.#write(
      `services/${name}`,
      operation,
      'POST',
      `/services/${id}/update?version=${version}`,
      body,
    )
  }

  async #rollBack(chance: Chance): Promise<void> {
    const name = this.#aService(chance)
    const seen = name && (await this.#read('services', name))
    if (!name || !seen) return
    const { id, version } = seen
    const url = `/services/${id}/update?version=${version}&rollback=previous`
    await this.#write(`services/${name}`, { type: 'goBack', version }, 'POST', url, seen.spec)
  }

  async #remove(chance: Chance): Promise<void> {
    const name = this.#aService(chance)
    if (!name) return
    const answer = await this.#write(
      `services/${name}`,
      { type: 'remove' },
      'DELETE',
      `/services/${name}`,
    )
    if (answer && answer.status < 300) this.#services.delete(name)
  }

  async #readService(chance: Chance): Promise<void> {
    const name = this.#aService(chance)
    if (name) await this.#read('services', name)
  }

  async #readLogs(chance: Chance): Promise<void> {
    const name = this.#aService(chance)
    if (!name) return
    const written = await writtenBy(this.#cluster, this.#judge.view, name)
    const answer = await this.#call('GET', `/services/${name}/logs?stdout=1&stderr=1`)
    if (answer?.status !== 200) return
    const what = await wrongWithLogs(this.#judge.view, written, answer.text)
    if (what !== undefined)
      this.#judge.fail('logs are whole or say why', `logs of ${name}: ${what}`)
  }

  async #list(chance: Chance): Promise<void> {
    await this.#call(
      'GET',
      chance.oneOf(
        '/services?status=true',
        '/tasks',
        '/nodes',
        '/networks',
        '/secrets',
        '/configs',
      ),
    )
  }

  async #setNode(chance: Chance, change: Record<string, string>): Promise<void> {
    const host = chance.pick(this.#cluster.hosts.filter(({ isRemoved }) => !isRemoved))
    // A cluster whose every node is drained has little to show.
    const isRefused = change['Availability'] === 'drain' && host?.name === 'h1'
    if (!host || isRefused) return
    if (change['Role'] === 'worker' && !this.#cluster.maySpare(host)) return
    const labels =
      change['Availability'] || change['Role'] ? {} : { zone: chance.oneOf('a', 'b', 'c') }
    await this.#changeNode(host, (seen) => ({
      ...change,
      Labels: { ...labelsOf(seen.spec), ...labels },
    }))
  }

  async #changeNode(
    host: Host,
    change: (seen: Seen) => { readonly Labels?: Record<string, unknown> } & Record<string, unknown>,
  ): Promise<void> {
    const seen = await this.#read('nodes', host.nodeId)
    if (!seen) return
    const mark = `m${++this.#serial}`
    const { Labels = labelsOf(seen.spec), ...rest } = change(seen)
    const body = { ...seen.spec, ...rest, Labels: { ...Labels, mark } }
    const url = `/nodes/${host.nodeId}/update?version=${seen.version}`
    const operation: Operation = { type: 'write', mark, version: seen.version }
    await this.#write(`nodes/${host.nodeId}`, operation, 'POST', url, body)
  }

  async #createFile(chance: Chance, kind: 'secret' | 'config'): Promise<void> {
    const known = kind === 'secret' ? this.#secrets : this.#configs
    if (known.size >= 4) return
    const name = this.#newName(kind)
    const mark = `m${++this.#serial}`
    const text =
      kind === 'secret' ? `${canary} ${chance.below(1_000)}` : `config ${chance.below(1_000)}`
    const body = { Name: name, Labels: { mark }, Data: Buffer.from(text).toString('base64') }
    const answer = await this.#write(
      `${kind}s/${name}`,
      { type: 'create', mark },
      'POST',
      `/${kind}s/create`,
      body,
    )
    const id = field(answer?.json, 'ID')
    if (answer?.status === 201 && typeof id === 'string') known.set(name, id)
  }

  async #removeFile(chance: Chance, kind: 'secret' | 'config'): Promise<void> {
    const known = kind === 'secret' ? this.#secrets : this.#configs
    const name = chance.pick([...known.keys()])
    if (name === undefined) return
    const answer = await this.#write(
      `${kind}s/${name}`,
      { type: 'remove' },
      'DELETE',
      `/${kind}s/${name}`,
    )
    if (answer && (answer.status < 300 || answer.status === 404)) known.delete(name)
  }

  async #relabel(chance: Chance): Promise<void> {
    const name = chance.pick([...this.#configs.keys()])
    const seen = name && (await this.#read('configs', name))
    if (!name || !seen) return
    const mark = `m${++this.#serial}`
    const url = `/configs/${seen.id}/update?version=${seen.version}`
    const body = { ...seen.spec, Labels: { mark } }
    await this.#write(
      `configs/${name}`,
      { type: 'write', mark, version: seen.version },
      'POST',
      url,
      body,
    )
  }

  async #createNetwork(chance: Chance): Promise<void> {
    if (this.#networks.size >= 4) return
    const name = this.#newName('net')
    const IPAM = chance.oneIn(4)
      ? { Config: [{ Subnet: `10.${chance.between(100, 103)}.0.0/2${chance.between(4, 8)}` }] }
      : undefined
    const body = { Name: name, Driver: 'overlay', ...(IPAM ? { IPAM } : {}) }
    const answer = await this.#call('POST', '/networks/create', body)
    const id = field(answer?.json, 'Id')
    if (answer?.status === 201 && typeof id === 'string') this.#networks.set(name, id)
  }

  async #removeNetwork(chance: Chance): Promise<void> {
    const [name, id] = chance.pick([...this.#networks]) ?? []
    if (!name || !id) return
    const answer = await this.#call('DELETE', `/networks/${id}`)
    if (answer && (answer.status < 300 || answer.status === 404)) this.#networks.delete(name)
  }

  async #join(chance: Chance): Promise<void> {
    const there = this.#cluster.hosts.filter(({ isRemoved }) => !isRemoved)
    if (there.length >= hostsMax) return
    const host = this.#cluster.addHost({
      nanoCpus: chance.between(1, 4) * 1e9,
      memoryBytes: chance.between(1, 8) * 1024 ** 3,
      gpus: chance.below(3),
    })
    this.#joining.add(host)
    const beganAt = this.#history.began()
    let isDone = await this.#cluster.enrol(host, 'worker')
    this.#history.ended(`nodes/${host.nodeId}`, beganAt, { type: 'create', mark: '' }, isDone)
    while (!isDone && !this.isAsleep) {
      await this.#sleep(2_000)
      isDone = await this.#cluster.enrol(host, 'worker')
    }
    // Where no answer came it may be a node all the same.
    this.#joining.delete(host)
    this.#cluster.startDaemon(host)
  }

  /** A worker goes for good: drained or not, and then removed. */
  async #leave(chance: Chance): Promise<void> {
    const there = this.#cluster.hosts.filter(({ isRemoved, isFounder }) => !isRemoved && !isFounder)
    const host = chance.pick(there.filter((one) => !this.#joining.has(one)))
    if (!host || there.length < 2) return
    const seen = await this.#read('nodes', host.nodeId)
    if (seen?.spec['Role'] !== 'worker') return
    this.#cluster.shutDown(host)
    await this.#sleep(chance.between(0, 10_000))
    const answer = await this.#write(
      `nodes/${host.nodeId}`,
      { type: 'remove' },
      'DELETE',
      `/nodes/${host.nodeId}?force=true`,
    )
    if (answer && answer.status < 300) host.isRemoved = true
    else this.#cluster.powerOn(host)
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  return Object.entries(value).find(([key]) => key === name)?.[1]
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null
    ? Object.fromEntries(Object.entries(value))
    : {}
}

function labelsOf(spec: Record<string, unknown>): Record<string, unknown> {
  return record(spec['Labels'])
}

function seenIn(json: unknown): Seen {
  const spec = record(field(json, 'Spec'))
  const version = Number(field(field(json, 'Version'), 'Index'))
  const mark = labelsOf(spec)['mark']
  const id = field(json, 'ID')
  return {
    version,
    mark: typeof mark === 'string' ? mark : '',
    spec,
    id: typeof id === 'string' ? id : '',
  }
}

function withImageOf(spec: Record<string, unknown>, drawn: Record<string, unknown>): unknown {
  const template = record(spec['TaskTemplate'])
  const container = record(template['ContainerSpec'])
  const other = record(record(drawn['TaskTemplate'])['ContainerSpec'])
  return {
    ...template,
    ContainerSpec: { ...container, Image: other['Image'], Env: other['Env'] },
  }
}
