import type { LabHost } from '../../test/lab/host.ts'
import type { Lab } from '../../test/lab/open-lab.ts'
import { EngineApi } from '../../test/support/engine-api.ts'
import { listAt, numberAt, textAt } from '../../test/support/look.ts'
import { secondsOf } from './rows.ts'
import { serviceSpec, until } from './services.ts'

/** Who runs a lab's hosts as one cluster: Skep's daemons, or the Swarm that is in their engines. */
export type Contender = 'skep' | 'swarm'

export interface SeenNode {
  readonly id: string
  readonly name: string
  readonly isReady: boolean
  readonly isManager: boolean
  readonly isReachable: boolean
  readonly isLeader: boolean
}

export interface SeenTask {
  readonly id: string
  readonly nodeId: string
  readonly state: string
}

/** One cluster on the hosts of a lab, by the same calls whoever runs it. */
export class LabCluster {
  readonly lab: Lab
  readonly contender: Contender
  readonly #apis = new Map<LabHost, EngineApi>()
  #tokens: { readonly worker: string; readonly manager: string } | undefined

  constructor(lab: Lab, contender: Contender) {
    this.lab = lab
    this.contender = contender
  }

  addressOf(host: LabHost): string {
    return this.contender === 'skep' ? host.api : host.engine
  }

  api(host: LabHost): EngineApi {
    const known = this.#apis.get(host)
    if (known) return known
    const api = new EngineApi(this.addressOf(host))
    this.#apis.set(host, api)
    return api
  }

  /** The stock client against this cluster's API on a host. */
  docker(host: LabHost, ...args: readonly string[]) {
    return this.contender === 'skep' ? host.skepDocker(...args) : host.docker(...args)
  }

  async ok(host: LabHost, ...args: readonly string[]): Promise<string> {
    return this.contender === 'skep' ? host.skepDockerOk(...args) : host.dockerOk(...args)
  }

  /** Begins the cluster on a host. */
  async init(host: LabHost): Promise<void> {
    await this.ok(host, 'swarm', 'init', '--advertise-addr', host.address)
    const token = (role: string) => this.ok(host, 'swarm', 'join-token', '-q', role)
    this.#tokens = { worker: await token('worker'), manager: await token('manager') }
  }

  /** Resolves once a manager calls the host ready. */
  async join(host: LabHost, role: 'worker' | 'manager', by: LabHost): Promise<void> {
    const token = this.#tokens?.[role] ?? ''
    await this.ok(host, 'swarm', 'join', '--token', token, `${by.address}:2377`)
    await until(
      `${host.name} is ready`,
      async () => (await this.nodeOf(host, by))?.isReady ?? false,
    )
  }

  async leave(host: LabHost, by: LabHost): Promise<void> {
    const node = await this.nodeOf(host, by)
    await this.ok(host, 'swarm', 'leave', '--force')
    if (!node) return
    await until(`${host.name} is gone`, async () => {
      return (await this.docker(by, 'node', 'rm', '--force', node.id)).code === 0
    })
  }

  async nodes(by: LabHost): Promise<readonly SeenNode[]> {
    return listAt(await this.api(by).ok('GET', '/nodes')).map((node) => ({
      id: textAt(node, 'ID'),
      name: textAt(node, 'Description', 'Hostname'),
      isReady: textAt(node, 'Status', 'State') === 'ready',
      isManager: textAt(node, 'Spec', 'Role') === 'manager',
      isReachable: textAt(node, 'ManagerStatus', 'Reachability') === 'reachable',
      isLeader: Reflect.get(Object(Reflect.get(Object(node), 'ManagerStatus')), 'Leader') === true,
    }))
  }

  /** A host that has left and joined again is more than one node: the one that counts is ready. */
  async nodeOf(host: LabHost, by: LabHost): Promise<SeenNode | undefined> {
    const nodes = (await this.nodes(by)).filter(({ name }) => name === host.name)
    return nodes.find(({ isReady }) => isReady) ?? nodes[0]
  }

  /** The host that leads; waits for one. */
  async leader(by: LabHost): Promise<LabHost> {
    let found: LabHost | undefined
    await until('a leader', async () => {
      const nodes = await this.nodes(by).catch(() => [])
      const name = nodes.find(({ isLeader, isReachable }) => isLeader && isReachable)?.name
      found = this.lab.hosts.find((host) => host.name === name)
      return found !== undefined
    })
    if (!found) throw new Error('there is no leader')
    return found
  }

  /** Waits until every node that is meant to be there is, and every manager in reach. */
  async settled(by: LabHost, count: number): Promise<void> {
    await until(`${count} nodes are ready`, async () => {
      const nodes = await this.nodes(by).catch(() => [])
      const ready = nodes.filter(({ isReady }) => isReady)
      const isLed = ready.some(({ isLeader }) => isLeader)
      return isLed && ready.length === count && ready.every((n) => !n.isManager || n.isReachable)
    })
  }

  async create(by: LabHost, name: string, image: string, replicas: number): Promise<void> {
    await this.api(by).ok('POST', '/services/create', serviceSpec(name, image, replicas))
  }

  /** As `create`, of one task, again and again until a manager takes it; the answer of one that was taken may be lost. */
  async createAtLast(by: LabHost, name: string, image: string): Promise<void> {
    await until(`${name} is taken`, async () => {
      const { status } = await this.api(by)
        .call('POST', '/services/create', serviceSpec(name, image, 1))
        .catch(() => ({ status: 0 }))
      return status === 201 || status === 409
    })
  }

  /** Tasks of a service that are meant to run. */
  async tasks(by: LabHost, service: string): Promise<readonly SeenTask[]> {
    const wanted = JSON.stringify({ service: [service], 'desired-state': ['running'] })
    const path = `/tasks?filters=${encodeURIComponent(wanted)}`
    return listAt(await this.api(by).ok('GET', path)).map((task) => ({
      id: textAt(task, 'ID'),
      nodeId: textAt(task, 'NodeID'),
      state: textAt(task, 'Status', 'State'),
    }))
  }

  /** Waits until exactly so many tasks are meant to run, and do; none of them on `exceptNodeId`. */
  async untilRunning(
    by: LabHost,
    service: string,
    count: number,
    exceptNodeId?: string,
  ): Promise<void> {
    await until(`${count} tasks of ${service}`, async () => {
      // A manager that has just lost its leader may not answer.
      const tasks = await this.tasks(by, service).catch(() => [])
      const up = tasks.filter((t) => t.state === 'running' && t.nodeId !== exceptNodeId)
      return up.length === count
    })
  }

  /** Has the tasks of a service placed anew until this node has some. */
  async spreadTo(nodeId: string, by: LabHost, service: string, count: number): Promise<void> {
    await until(`a task of ${service} on the node`, async () => {
      await this.untilRunning(by, service, count)
      if ((await this.tasks(by, service)).some((task) => task.nodeId === nodeId)) return true
      await this.ok(by, 'service', 'update', '-d', '-q', '--force', service)
      const label = 'UpdateStatus'
      await until('the update', async () => {
        const found = await this.api(by).ok('GET', `/services/${service}`)
        return textAt(found, label, 'State') === 'completed'
      })
      return false
    })
  }

  /** Containers of tasks that run on a host, by id: one that was restarted or replaced has another. */
  async containers(host: LabHost): Promise<readonly string[]> {
    const label = 'label=com.docker.swarm.task.id'
    const ids = await host.dockerOk('ps', '-q', '--no-trunc', '--filter', label)
    return ids.split('\n').filter(Boolean).sort()
  }

  async powerOff(host: LabHost): Promise<void> {
    await host.powerOff()
    this.#forget(host)
  }

  async powerOn(host: LabHost): Promise<void> {
    await host.powerOn()
    if (this.contender === 'skep') await host.startDaemon()
  }

  async killDaemon(host: LabHost): Promise<void> {
    await host.stopDaemon('SIGKILL')
    this.#forget(host)
  }

  #forget(host: LabHost): void {
    this.#apis.get(host)?.close()
    this.#apis.delete(host)
  }

  close(): void {
    for (const api of this.#apis.values()) api.close()
  }

  /** Ends the cluster on every host, whatever is left of it. */
  async end(): Promise<void> {
    this.close()
    await Promise.all(
      this.lab.hosts.map((host) => this.docker(host, 'swarm', 'leave', '--force').catch(() => {})),
    )
  }
}

/** Memory that a process of a host holds, in MB; NaN where it does not run. */
export async function memoryMb(host: LabHost, of: 'daemon' | 'etcd'): Promise<number> {
  const find = of === 'daemon' ? `cat ${host.folder}/daemon.pid` : 'pgrep -x etcd | head -1'
  const pid = (await host.must('bash', '-c', `${find} || true`)).trim()
  if (pid === '') return Number.NaN
  const status = await host.must('cat', `/proc/${pid}/status`)
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}

/** Milliseconds that something took. */
export async function msOf(work: () => Promise<unknown>): Promise<number> {
  return (await secondsOf(work)) * 1000
}

/** Version of the cluster's own count of a service's replicas, to scale it by API. */
export async function scale(
  cluster: LabCluster,
  by: LabHost,
  service: string,
  replicas: number,
): Promise<void> {
  const api = cluster.api(by)
  const found = await api.ok('GET', `/services/${service}?insertDefaults=false`)
  const version = numberAt(found, 'Version', 'Index')
  const spec = Object(structuredClone(Reflect.get(Object(found), 'Spec')))
  Reflect.set(spec, 'Mode', { Replicated: { Replicas: replicas } })
  await api.ok('POST', `/services/${service}/update?version=${version}`, spec)
}
