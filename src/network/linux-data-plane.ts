import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Clock, type Log, messageOf, Semaphore, UserError } from '../base/index.ts'
import type { NetworkId } from '../model/index.ts'
import type { NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { addressesByDevice, isBridgeUp, removeBridge, repairBridge, tuneBridge } from './bridges.ts'
import type { DataPlane, DesiredNetwork, LocalTask } from './data-plane.ts'
import { type EngineNetworks, NodeNetworks } from './engine-networks.ts'
import { ForwardingRules } from './forwarding.ts'
import { publishedSubnets, renderHostRules } from './host-rules.ts'
import { KernelTable } from './kernel-table.ts'
import { hostNamespace, identify, type ProcessIdentity, processNamespace } from './namespace.ts'
import { countOpenConnections, hasUdpSockets } from './open-connections.ts'
import { buildZones } from './resolver/zones.ts'
import { ResolverLink } from './resolver-link.ts'
import type { Ruleset } from './ruleset.ts'
import { renderTaskRules } from './task-rules.ts'

export interface LinuxDataPlaneOptions {
  readonly engine: { readonly networks: EngineNetworks }
  /** The resolver's files; only root may read it. Made if it is not there. */
  readonly stateDir: string
  readonly clock: Clock
  readonly log: Log
  /** Names what this data plane makes in the kernel, so that several can share a machine. Default `skep`. */
  readonly tableName?: string
  /** The resolver's program: `resolver-main.ts` beside the sources, or what the bundle has of it. */
  readonly resolverEntry?: string
}

/** Namespaces told at a time. */
const namespacesAtOnce = 4
/** Task namespaces looked into at each audit; the others have their turn at the next. */
const namespacesPerAudit = 2
/** Rotations of a balancing order: namespaces with the same share their rules' text. */
const rotations = 8

const noNetwork: DesiredNetwork = { networks: [], endpoints: [], tasks: [] }

interface TaskTable {
  readonly identity: ProcessIdentity
  readonly table: KernelTable
  /** Addresses of the tasks that live in this namespace, by network. */
  tasks: readonly LocalTask[]
}

/** The data plane of a Linux host: bridges by the engine, nftables, and a resolver process. */
export async function openLinuxDataPlane(options: LinuxDataPlaneOptions): Promise<DataPlane> {
  const tableName = options.tableName ?? 'skep'
  if (!/^[A-Za-z][A-Za-z0-9_-]{0,30}$/.test(tableName)) {
    throw new UserError('invalidInput', `"${tableName}" can't name an nftables table`, {
      next: 'Use up to 31 letters, digits, "-" and "_", beginning with a letter.',
    })
  }
  const version = await hostNamespace.run('nft', ['--version'])
  if (version?.code !== 0) {
    throw new UserError('unsupported', `nft does not run here: ${version?.stderr ?? ''}`, {
      next: 'Install nftables and run the daemon as root.',
    })
  }
  const self = await identify(process.pid)
  return new LinuxDataPlane({
    ...options,
    tableName,
    hostNetworkNamespace: self?.namespace ?? '',
    resolverEntry:
      options.resolverEntry ??
      join(fileURLToPath(new URL('.', import.meta.url)), 'resolver', 'resolver-main.ts'),
  })
}

class LinuxDataPlane implements DataPlane {
  readonly #options: LinuxDataPlaneOptions
  readonly #tableName: string
  readonly #hostNetworkNamespace: string
  readonly #networks: NodeNetworks
  readonly #resolver: ResolverLink
  readonly #forwarding: ForwardingRules
  readonly #hostTable = new KernelTable(hostNamespace)
  /** By process: `<pid> <start>`. */
  #taskTables = new Map<string, TaskTable>()
  readonly #atOnce = new Semaphore(namespacesAtOnce)

  #desired: DesiredNetwork = noNetwork
  /** Networks made for tasks to come, before the desired state names them. */
  readonly #expected = new Map<NetworkId, NetworkAssignment>()
  #round: Promise<void> | undefined
  #nextRound: Promise<void> | undefined
  /** Kernel and resolver are changed by one at a time: a round, an audit, or clear. */
  #turn: Promise<unknown> = Promise.resolve()
  #forwardedSubnets: string | undefined
  #auditPosition = 0
  #canMoveFlows = true
  #resolverTrouble = ''
  #isClosed = false

  constructor(
    options: LinuxDataPlaneOptions & {
      readonly tableName: string
      readonly resolverEntry: string
      readonly hostNetworkNamespace: string
    },
  ) {
    const { engine, stateDir, clock, log, tableName, resolverEntry } = options
    this.#options = options
    this.#tableName = tableName
    this.#hostNetworkNamespace = options.hostNetworkNamespace
    this.#networks = new NodeNetworks({
      engine: engine.networks,
      removeBridge,
      owner: tableName,
      clock,
      log,
    })
    this.#resolver = new ResolverLink({ stateDir, entry: resolverEntry, clock, log })
    this.#forwarding = new ForwardingRules(tableName)
  }

  async ensureNetwork(network: NetworkAssignment): Promise<string> {
    if (this.#networks.isReady(network)) return await this.#networks.ensure(network)
    const name = await this.#networks.ensure(network)
    if (!this.#desired.networks.some(({ id }) => id === network.id)) {
      this.#expected.set(network.id, network)
    }
    // The bridge is there now: names are answered on it before a container can ask.
    await this.#inTurn(async () => {
      await tuneBridge(network, this.#options.log)
      await this.#publishNames()
    })
    return name
  }

  apply(desired: DesiredNetwork): Promise<void> {
    this.#desired = desired
    for (const { id } of desired.networks) this.#expected.delete(id)
    // A round that has begun looks at an older picture: the next one answers, for all who asked meanwhile.
    if (this.#round) {
      this.#nextRound ??= this.#round
        .catch(() => {})
        .then(() => {
          this.#nextRound = undefined
          return this.#begin()
        })
      return this.#nextRound
    }
    return this.#begin()
  }

  #begin(): Promise<void> {
    const round = this.#inTurn(() => this.#settle()).finally(() => {
      if (this.#round === round) this.#round = undefined
    })
    this.#round = round
    return round
  }

  nameserversFor(networks: readonly NetworkAssignment[]): readonly string[] {
    // One is enough: the resolver sees by the asking address which container it is, and knows all its networks. Nobody
    // declares names on the ingress network, so a task that is only there keeps the engine's own resolvers.
    const [network] = networks.filter(({ ingress }) => !ingress)
    return network ? [network.gateway] : []
  }

  audit(): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      const desired = this.#desired
      const found: string[] = []
      const troubles: string[] = []
      const look = async (work: () => Promise<readonly string[]>) => {
        try {
          found.push(...(await work()))
        } catch (error) {
          troubles.push(messageOf(error))
        }
      }
      await look(() => this.#auditBridges(desired))
      await Promise.all([
        look(() => this.#auditTable(this.#hostTable)),
        look(() => this.#forwarding.repair()),
        look(() => this.#resolver.audit()),
        ...this.#nextTables().map(({ table }) => look(() => this.#auditTable(table))),
      ])
      await look(async () => {
        await this.#removeUnwanted(desired)
        return []
      })
      if (troubles.length > 0) {
        const seen = [...found, ...troubles].join('; ')
        throw new UserError('internal', `the node's network could not be put right: ${seen}`)
      }
      return found
    })
  }

  openConnections(
    task: { readonly pid: number },
    ports: readonly { readonly protocol: string; readonly port: number }[],
  ): Promise<number> {
    return countOpenConnections(task.pid, ports)
  }

  clear(): Promise<void> {
    return this.#inTurn(async () => {
      this.#desired = noNetwork
      this.#expected.clear()
      const tables = [this.#hostTable, ...[...this.#taskTables.values()].map(({ table }) => table)]
      this.#taskTables = new Map()
      this.#forwardedSubnets = undefined
      const done = await Promise.allSettled([
        ...tables.map((table) => this.#atOnce.run(() => table.remove(this.#tableName))),
        this.#forwarding.clear(),
        this.#resolver.stop(),
        this.#networks.clear(),
      ])
      throwAll(done, 'the node still has parts of the cluster network')
    })
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#turn.catch(() => {})
    await this.#resolver.close()
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = () => {
      if (this.#isClosed) throw new UserError('unavailable', 'the data plane is closed')
      return work()
    }
    const turn = this.#turn.then(next, next)
    this.#turn = turn.catch(() => {})
    return turn
  }

  /** One round: brings everything in step with the desired state. One failing part does not hold up the others. */
  async #settle(): Promise<void> {
    const desired = this.#desired
    const made = await Promise.allSettled(
      desired.networks.map(async (network) => {
        if (this.#networks.isReady(network)) return
        await this.#networks.ensure(network)
        await tuneBridge(network, this.#options.log)
      }),
    )
    const { networks, endpoints } = desired
    const done = await Promise.allSettled([
      this.#hostTable
        .apply(renderHostRules({ table: this.#tableName, networks, endpoints }))
        .then((isChanged) => (isChanged ? this.#moveFlows(this.#hostTable, 'port') : undefined)),
      this.#allowForwarding(publishedSubnets(networks, endpoints)),
      this.#applyToTasks(desired),
      this.#publishNames(),
    ])
    await this.#removeUnwanted(desired).catch((error: unknown) => {
      this.#options.log.warn('networks that are not needed could not be removed', {
        error: messageOf(error),
      })
    })
    throwAll([...made, ...done], "the node's network is not as it should be")
  }

  async #allowForwarding(subnets: readonly string[]): Promise<void> {
    const key = subnets.join(' ')
    if (key === this.#forwardedSubnets) return
    await this.#forwarding.ensure(subnets)
    this.#forwardedSubnets = key
  }

  async #applyToTasks(desired: DesiredNetwork): Promise<void> {
    const before = this.#taskTables
    const after = new Map<string, TaskTable>()
    const byNamespace = new Map<string, TaskTable>()
    for (const task of desired.tasks) {
      const identity = await identify(task.pid)
      // Ended meanwhile; or its pid is another process's by now, which runs on the host.
      if (!identity || identity.namespace === this.#hostNetworkNamespace) continue
      const shared = byNamespace.get(identity.namespace)
      if (shared) {
        shared.tasks = [...shared.tasks, task]
        continue
      }
      const key = `${identity.pid} ${identity.startTicks}`
      const known = before.get(key)
      const entry: TaskTable = known ?? {
        identity,
        table: new KernelTable(processNamespace(`the task ${task.name}`, identity)),
        tasks: [],
      }
      entry.tasks = [task]
      after.set(key, entry)
      byNamespace.set(identity.namespace, entry)
    }
    // A container that is not wanted any more keeps its rules while it stops: they go with its namespace.
    this.#taskTables = after
    const rulesets = new Map<string, Ruleset>()
    const done = await Promise.allSettled(
      [...after.values()].map(({ table, tasks }) =>
        this.#atOnce.run(async () => {
          if (!(await table.apply(this.#rulesFor(tasks, desired, rulesets)))) return
          const [task] = tasks
          if (task && (await hasUdpSockets(task.pid))) await this.#moveFlows(table, 'address')
        }),
      ),
    )
    throwAll(done, 'the rules of some tasks could not be changed')
  }

  /** Tasks on the same networks share one text. */
  #rulesFor(
    tasks: readonly LocalTask[],
    desired: DesiredNetwork,
    rulesets: Map<string, Ruleset>,
  ): Ruleset {
    const networks = new Set(
      tasks.flatMap(({ addresses }) => addresses.map(({ networkId }) => networkId)),
    )
    const rotation = rotationOf(tasks[0]?.taskId ?? '')
    const key = `${rotation} ${[...networks].sort().join(' ')}`
    const known = rulesets.get(key)
    if (known) return known
    const { endpoints } = desired
    const ruleset = renderTaskRules({ table: this.#tableName, endpoints, networks, rotation })
    rulesets.set(key, ruleset)
    return ruleset
  }

  /** Flows without connections would go on to a backend that is gone for as long as their client keeps sending. */
  async #moveFlows(table: KernelTable, destination: 'address' | 'port'): Promise<void> {
    if (!this.#canMoveFlows) return
    try {
      const local = new Set([...(await addressesByDevice()).values()].flat())
      await table.moveFlows(destination, local)
    } catch (error) {
      this.#canMoveFlows = !(error instanceof UserError && error.code === 'unsupported')
      this.#options.log.warn('udp flows to removed tasks could not be moved', {
        namespace: table.namespace.name,
        error: messageOf(error),
        next: 'Install conntrack (package conntrack) and restart the daemon.',
      })
    }
  }

  async #publishNames(): Promise<void> {
    const { networks, endpoints, tasks } = this.#desired
    const ready = [...networks, ...this.#expected.values()].filter((network) =>
      this.#networks.isReady(network),
    )
    const failures = await this.#resolver.publish(buildZones({ networks: ready, endpoints, tasks }))
    const trouble = Object.entries(failures)
      .map(([gateway, why]) => `${gateway}: ${why}`)
      .join('; ')
    if (trouble !== '' && trouble !== this.#resolverTrouble) {
      this.#options.log.error('the resolver can not listen on every network', {
        trouble,
        next: 'End whatever else listens on port 53 of all addresses of this host.',
      })
    }
    this.#resolverTrouble = trouble
  }

  async #removeUnwanted(desired: DesiredNetwork): Promise<void> {
    const wanted = new Set<string>(desired.networks.map(({ id }) => id))
    await this.#networks.keepOnly(wanted)
    for (const [id, network] of this.#expected) {
      if (!this.#networks.isReady(network)) this.#expected.delete(id)
    }
  }

  async #auditBridges(desired: DesiredNetwork): Promise<readonly string[]> {
    const found: string[] = [...(await this.#networks.audit(desired.networks))]
    if (desired.networks.length === 0) return found
    const devices = await addressesByDevice()
    for (const network of desired.networks) {
      if (!this.#networks.isReady(network)) continue
      if (!isBridgeUp(network, devices)) {
        await repairBridge(network, this.#attachedTo(network.id))
        found.push(`the bridge ${bridgeName(network.id)} of network "${network.name}" was broken`)
      }
      if (await tuneBridge(network, this.#options.log)) {
        found.push(`the settings of bridge ${bridgeName(network.id)} had changed`)
      }
    }
    return found
  }

  #attachedTo(networkId: NetworkId) {
    return [...this.#taskTables.values()].flatMap(({ table, tasks }) =>
      tasks.flatMap(({ addresses }) =>
        addresses
          .filter((place) => place.networkId === networkId)
          .map(({ address }) => ({ namespace: table.namespace, address })),
      ),
    )
  }

  async #auditTable(table: KernelTable): Promise<readonly string[]> {
    if (await table.isIntact()) return []
    await table.repair()
    return [`the network rules of ${table.namespace.name} had been changed`]
  }

  #nextTables(): readonly TaskTable[] {
    const all = [...this.#taskTables.values()]
    const count = Math.min(namespacesPerAudit, all.length)
    const start = this.#auditPosition
    this.#auditPosition = all.length === 0 ? 0 : (start + count) % all.length
    return Array.from({ length: count }, (_, index) => all[(start + index) % all.length]).filter(
      (entry) => entry !== undefined,
    )
  }
}

function rotationOf(taskId: string): number {
  let sum = 0
  for (const char of taskId) sum = (sum * 31 + char.charCodeAt(0)) % 65_521
  return sum % rotations
}

function throwAll(done: readonly PromiseSettledResult<unknown>[], what: string): void {
  const failed = done.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
  const [first] = failed
  if (failed.length === 0) return
  if (failed.length === 1 && first instanceof UserError) throw first
  throw new UserError('internal', `${what}: ${failed.map(messageOf).join('; ')}`, {
    cause: first,
  })
}
