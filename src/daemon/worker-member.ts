import { type Agent, startAgent } from '../agent/index.ts'
import { messageOf, UserError, untilAborted, within } from '../base/index.ts'
import {
  announceLeave,
  type Closing,
  NodeAnswers,
  openReferral,
  openRemoteDesk,
  openRemoteLink,
  openTlsTransport,
  renewCertificate,
  type SessionSettings,
  type TlsTransport,
  type Transport,
} from '../cluster/index.ts'
import type { NodeRole } from '../model/index.ts'
import { bridgePrefix, type DataPlane, type Encryption } from '../network/index.ts'
import type { Runtime } from '../runtime/index.ts'
import type { ManagerLink } from '../wire/index.ts'
import { type CertificateRenewal, keepRenewed } from './certificate-renewal.ts'
import { clearHost, describeEncryption, type MemberWorld, openHost, servicesOf } from './host.ts'
import { chooseListenAddress, hostSubnets, isOwnAddress } from './host-facts.ts'
import { dataPaths, type Identity } from './identity.ts'
import { openNetworkExaminer } from './network-examiner.ts'
import { NodeAttachments } from './node-attachments.ts'
import type { NodeCertificates } from './node-certificates.ts'
import { openFileJournal } from './node-journal.ts'
import { decideOwnAddress, hostOf } from './own-address.ts'
import { type PlainContainers, watchPlainContainers } from './plain-containers.ts'
import { heedRemoval } from './removed-node.ts'
import { version } from './version.ts'

/** Between attempts to open a port that something else holds, in ms. */
const portRetryMs = 2_000
/** For a manager to take note that this node leaves, in ms. */
const goodbyeMs = 3_000

/** This node while it is a worker: an agent with a session over the network, and no state of the cluster's. */
export class WorkerMember {
  #identity: Identity
  readonly agent: Agent
  readonly runtime: Runtime
  /** Places of this node's plain containers on attachable networks. */
  readonly attachments: NodeAttachments
  readonly #world: MemberWorld
  readonly #certificates: NodeCertificates
  readonly #transport: TlsTransport
  readonly #dataPlane: DataPlane
  readonly #plain: PlainContainers
  readonly #answers: NodeAnswers
  readonly #renewal: CertificateRenewal
  readonly #closing = new AbortController()
  #inSession = false
  /** Why no manager takes this node any more, in words; only a person can change that. */
  #refused: UserError | undefined
  #closesBecause: Closing | undefined
  #promoted = () => {}
  /** What the managers want this node to be, as they said last. */
  #wantedRole: NodeRole = 'worker'
  /** Where nodes still look for a manager that was one. */
  readonly #referring: Promise<void>

  private constructor(
    world: MemberWorld,
    identity: Identity,
    certificates: NodeCertificates,
    host: {
      readonly runtime: Runtime
      readonly dataPlane: DataPlane
      readonly encryption: Encryption
    },
  ) {
    const { clock, random, log, engine, options } = world
    this.#world = world
    this.#identity = identity
    this.#certificates = certificates
    this.runtime = host.runtime
    this.#dataPlane = host.dataPlane
    this.#transport = openTlsTransport({
      credentials: () => certificates.credentials(),
      clock,
      log,
    })
    const network = openNetworkExaminer({
      dataPlane: host.dataPlane,
      agent: () => this.agent,
      clock,
    })
    const services = servicesOf(world, host.runtime, network)
    this.#answers = new NodeAnswers(this.#transport, services, version, log)
    this.#renewal = keepRenewed({
      certificate: () => certificates.certificate,
      renew: (signal) => this.#renew(signal),
      clock,
      random,
      log,
    })
    const remoteDesk = openRemoteDesk(
      { transport: this.#transport, clock, skepVersion: version },
      () => this.managers,
      this.#closing.signal,
    )
    this.attachments = new NodeAttachments({
      desk: () => remoteDesk,
      dataPlane: host.dataPlane,
      plain: () => this.#plain,
      clock,
      log,
    })
    this.#plain = watchPlainContainers({
      engine,
      clock,
      log,
      changed: () => this.agent.plainContainersChanged(),
      gone: () => this.attachments.sweep(),
    })
    this.agent = startAgent({
      nodeId: identity.nodeId,
      runtime: host.runtime,
      dataPlane: host.dataPlane,
      link: this.#link(),
      clock,
      log,
      journal: openFileJournal({
        path: dataPaths(options.dataRoot).journal,
        keyPem: certificates.keyPem,
      }),
      describeHost: async () => ({
        skepVersion: version,
        address: this.#locate(),
        hostSubnets: hostSubnets((name) => name.startsWith(bridgePrefix)),
        tls: certificates.tls,
        encryption: describeEncryption(host.encryption),
        ...(this.#identity.dataPathAddress === undefined
          ? {}
          : { dataPathAddress: this.#identity.dataPathAddress }),
      }),
      plainContainers: () => this.#plain.list(),
    })
    this.#referring = identity.wasManager ? this.#refer() : Promise.resolve()
  }

  static async open(
    world: MemberWorld,
    identity: Identity,
    certificates: NodeCertificates,
  ): Promise<WorkerMember> {
    const host = await openHost(world, identity, certificates.clusterId)
    return new WorkerMember(world, identity, certificates, host)
  }

  get identity(): Identity {
    return this.#identity
  }

  /** The address of this node now, without port: it may have become another while the daemon runs. */
  #locate(): string {
    const { options, log } = this.#world
    const { identity, doubt } = decideOwnAddress(this.#identity, options.advertiseAddress)
    if (doubt) log.warn(doubt.message, {})
    const { address } = identity
    if (address !== this.#identity.address) log.info('this node has another address', { address })
    this.#identity = identity
    return hostOf(address)
  }

  /** Sends on those who knew this node as a manager, until it closes. */
  async #refer(): Promise<void> {
    const { clock, log } = this.#world
    const { signal } = this.#closing
    let isSaid = false
    while (!signal.aborted) {
      try {
        const { host, port } = chooseListenAddress(this.#identity.listenAddress)
        const listener = await openReferral({
          transport: this.#transport,
          listenAddress: `${host}:${port}`,
          managers: () => this.managers,
          clock,
          log,
        })
        await untilAborted(signal)
        await listener.close()
      } catch (error) {
        const why = 'nodes that look for this one as a manager can not be sent on'
        if (!isSaid) log.warn(why, { error: messageOf(error) })
        isSaid = true
        await clock.sleep(portRetryMs, signal)
      }
    }
  }

  /** Whether a manager has this node's session now. */
  get isInSession(): boolean {
    return this.#inSession
  }

  /** A refusal that no waiting mends: this node was removed. */
  get refusal(): UserError | undefined {
    return this.#refused
  }

  get certificates(): NodeCertificates {
    return this.#certificates
  }

  get transport(): Transport {
    return this.#transport
  }

  /** Calls back, again and again, while the managers want this node to be one of them. */
  onPromoted(promoted: () => void): void {
    this.#promoted = promoted
  }

  get wantedRole(): NodeRole {
    return this.#wantedRole
  }

  /** A new certificate, for the role that the node has by now. */
  renewNow(signal: AbortSignal): Promise<void> {
    return this.#renew(signal)
  }

  /** `host:port` of cluster ports, the leader's first; last those that a person has named. */
  get managers(): readonly string[] {
    return [...new Set([...this.#certificates.managers, ...this.#world.options.managers])]
  }

  /** The agent's way to the leader, with an eye on what managers say of this node. */
  #link(): ManagerLink {
    const { clock, random, log } = this.#world
    const remote = openRemoteLink({
      transport: this.#transport,
      clock,
      random,
      log,
      skepVersion: version,
      managers: () => this.managers,
      learned: (settings) => this.#learn(settings),
      isOwnAddress,
      asked: (ask) => this.#answers.answer(ask),
      closing: () => this.#closesBecause,
    })
    return heedRemoval(this.#observed(remote), {
      clusterId: this.#certificates.clusterId,
      clock,
      log,
      removed: () => {
        this.#refused = new UserError(
          'notInCluster',
          'this node was removed from the cluster, and its tasks are stopped',
          { next: 'Run `docker swarm leave` here; the node can join again then.' },
        )
      },
    })
  }

  /** Notes whether there is a session, and why there is none. */
  #observed(remote: ManagerLink): ManagerLink {
    const { log } = this.#world
    return {
      open: async (nodeId, description, signal, held) => {
        try {
          const session = await remote.open(nodeId, description, signal, held)
          if (!this.#inSession) log.info('in session with a manager', {})
          this.#inSession = true
          this.#refused = undefined
          return {
            next: async (wait) => {
              try {
                return await session.next(wait)
              } catch (error) {
                this.#lost(error)
                throw error
              }
            },
            acknowledge: (sequence) => session.acknowledge(sequence),
            report: (reports) => session.report(reports),
            describe: (next) => session.describe(next),
            close: () => session.close(),
          }
        } catch (error) {
          this.#lost(error)
          throw error
        }
      },
    }
  }

  #lost(error: unknown): void {
    this.#inSession = false
    if (!(error instanceof UserError)) return
    if (error.code === 'notFound' || error.code === 'notInCluster') this.#refused = error
    // The certificate has ended, or its root has gone: the key still proves who this is.
    if (error.code === 'forbidden') this.#renewal.within(0)
  }

  #learn(settings: SessionSettings): void {
    const { log } = this.#world
    const managers = settings.managers.map(({ address }) => address)
    this.#certificates
      .learn({ rootsPem: settings.rootsPem, managers })
      .then((isNews) => {
        if (isNews) this.#transport.credentialsChanged()
      })
      .catch((error: unknown) =>
        log.error('what the managers said of themselves could not be kept', {
          error: messageOf(error),
        }),
      )
    this.#wantedRole = settings.role ?? this.#wantedRole
    if (settings.role === 'manager') this.#promoted()
    if (settings.renewWithinMs !== undefined) this.#renewal.within(settings.renewWithinMs)
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { keyPem } = this.#certificates
    const world = { transport: this.#transport, clock: this.#world.clock, skepVersion: version }
    const admission = await renewCertificate(world, keyPem, this.managers, signal)
    await this.#certificates.renew(admission)
    this.#transport.credentialsChanged()
    await this.agent.describeAgain()
  }

  /** Stops working; containers, traffic and names go on, unless the host stops. */
  async close(because: Closing = 'restart'): Promise<void> {
    this.#closesBecause = because
    await this.#renewal.close()
    this.#answers.close()
    await this.#plain.close()
    this.#closing.abort()
    await this.#referring
    await this.attachments.close()
    await this.agent.close()
    await this.#dataPlane.close()
  }

  /** Leaves: tells the managers, if any is in reach, ends every task of the cluster on this host and tidies up. */
  async destroy(): Promise<void> {
    const { clock, log } = this.#world
    await this.#renewal.close()
    this.#answers.close()
    await this.#plain.close()
    this.#closing.abort()
    await this.#referring
    await this.attachments.close()
    await this.agent.close()
    const world = { transport: this.#transport, clock, skepVersion: version }
    await within(clock, goodbyeMs, (late) => announceLeave(world, this.managers, late)).catch(
      (error: unknown) =>
        log.warn('no manager knows that this node leaves; remove it there with `docker node rm`', {
          error: messageOf(error),
        }),
    )
    await clearHost(this.#world, this.runtime, this.#dataPlane)
  }
}
