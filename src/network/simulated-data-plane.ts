import { UserError } from '../base/index.ts'
import { ipv4Of, type NetworkId, type Protocol } from '../model/index.ts'
import type { Backend, NetworkAssignment } from '../wire/index.ts'
import type { DataPlane, DesiredNetwork, LocalTask } from './data-plane.ts'
import { isDual } from './ipv6-view.ts'
import { indexState, lookUp } from './resolver/lookup.ts'
import { buildZones } from './resolver/zones.ts'

/** What a connection came to: the name of the task that took it. */
export type Connection = { readonly taskName: string } | 'refused'

/** A data plane without packets, for tests and the simulator. What it was told takes effect when `apply` resolves. */
export class SimulatedDataPlane implements DataPlane {
  /** Engine networks that are not Skep's, by name. */
  readonly foreignNetworks = new Set<string>()
  readonly #networks = new Map<NetworkId, NetworkAssignment>()
  readonly #openConnections = new Map<number, number>()
  #desired: DesiredNetwork = { networks: [], endpoints: [], tasks: [] }
  #drift: readonly string[] = []
  #failure: Error | undefined
  #turn = 0

  /** What was applied last. */
  get desired(): DesiredNetwork {
    return this.#desired
  }

  async ensureNetwork(network: NetworkAssignment): Promise<string> {
    if (this.foreignNetworks.has(network.name)) {
      throw new UserError('conflict', `a network "${network.name}" that is not Skep's is there`, {
        next: 'Remove it, or name the cluster network otherwise.',
      })
    }
    for (const other of this.#networks.values()) {
      if (other.id === network.id || other.subnet !== network.subnet) continue
      throw new UserError('unavailable', `"${other.name}" still has ${network.subnet}`, {
        next: 'It is replaced as soon as its last container is gone.',
      })
    }
    this.#networks.set(network.id, network)
    return network.name
  }

  async apply(desired: DesiredNetwork): Promise<void> {
    const failure = this.#failure
    this.#failure = undefined
    if (failure) throw failure
    const wanted = new Set(desired.networks.map(({ id }) => id))
    for (const id of this.#networks.keys()) if (!wanted.has(id)) this.#networks.delete(id)
    for (const network of desired.networks) await this.ensureNetwork(network)
    this.#desired = desired
  }

  nameserversFor(networks: readonly NetworkAssignment[]): readonly string[] {
    const [network] = networks.filter(({ ingress }) => !ingress)
    return network ? [network.gateway] : []
  }

  async audit(): Promise<readonly string[]> {
    const drift = this.#drift
    this.#drift = []
    return drift
  }

  async examine() {
    const drift = await this.audit()
    return { findings: drift.map((what) => ({ what, next: 'It was repaired just now.' })) }
  }

  async openConnections(task: { readonly pid: number }): Promise<number> {
    return this.#openConnections.get(task.pid) ?? 0
  }

  /** Simulated programs listen at once. */
  async silentPorts(): Promise<readonly []> {
    return []
  }

  async clear(): Promise<void> {
    this.#networks.clear()
    this.#drift = []
    this.#desired = { networks: [], endpoints: [], tasks: [] }
  }

  async close(): Promise<void> {}

  /** The next `apply` rejects with this, and changes nothing. */
  failNextApply(error: Error): void {
    this.#failure = error
  }

  /** The next audit finds this. */
  breakSomething(what: string): void {
    this.#drift = [...this.#drift, what]
  }

  setOpenConnections(pid: number, count: number): void {
    this.#openConnections.set(pid, count)
  }

  /** A connection from a task to an address: a VIP's backends take them in turn, by weight. */
  connect(from: LocalTask, asked: string): Connection {
    const address =
      this.#desired.networks
        .filter(isDual)
        .map((network) => ipv4Of(network, asked))
        .find((narrow) => narrow !== undefined) ?? asked
    const networks = new Set<string>(from.addresses.map(({ networkId }) => networkId))
    for (const endpoint of this.#desired.endpoints) {
      for (const { networkId, vip } of endpoint.networks) {
        if (vip !== address || !networks.has(networkId)) continue
        return this.#pick(
          endpoint.backends.filter((backend) => backend.addresses[networkId] !== undefined),
        )
      }
    }
    const task = this.#desired.tasks.find(({ addresses }) =>
      addresses.some((place) => place.address === address && networks.has(place.networkId)),
    )
    return task ? { taskName: task.name } : 'refused'
  }

  /** A connection from outside to a published port. */
  connectPublished(protocol: Protocol, port: number): Connection {
    const endpoint = this.#desired.endpoints.find(({ ports }) =>
      ports.some((spec) => spec.protocol === protocol && spec.publishedPort === port),
    )
    return this.#pick(endpoint?.backends ?? [])
  }

  /** Addresses that a name has for a task; undefined: a name of the world outside. */
  resolve(from: LocalTask, name: string, type: 'A' | 'AAAA' = 'A'): readonly string[] | undefined {
    const directory = indexState(buildZones(this.#desired))
    const question = { name, type, class: 'IN' }
    const answer = lookUp(directory, question, from.addresses[0]?.address ?? '', '')
    if (answer.type === 'addresses') return answer.addresses
    return answer.type === 'empty' ? [] : undefined
  }

  #pick(backends: readonly Backend[]): Connection {
    const able = backends.filter(({ weight }) => weight >= 1)
    const sum = able.reduce((total, { weight }) => total + Math.floor(weight), 0)
    if (sum === 0) return 'refused'
    let place = this.#turn++ % sum
    for (const { weight, taskName } of able) {
      if (place < Math.floor(weight)) return { taskName }
      place -= Math.floor(weight)
    }
    return 'refused'
  }
}
