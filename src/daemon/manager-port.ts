import { createPublicKey } from 'node:crypto'
import { messageOf, UserError, WakeUp } from '../base/index.ts'
import {
  type AttachmentDesk,
  Authority,
  type ClusterPort,
  endRotation,
  isRotationDone,
  type ManagerAddress,
  type ManagerMembers,
  NodeAnswers,
  type NodeServices,
  openClusterPort,
  openTlsTransport,
  rootsOf,
  type TlsTransport,
  type Transport,
} from '../cluster/index.ts'
import { clusterOf } from '../control/index.ts'
import type { Dispatcher } from '../dispatcher/index.ts'
import type { NodeId } from '../model/index.ts'
import { createNodeKey, type Keyring } from '../security/index.ts'
import { nextCommit, type Store } from '../store/index.ts'
import { type CertificateRenewal, keepRenewed } from './certificate-renewal.ts'
import type { MemberWorld } from './host.ts'
import { chooseListenAddress } from './host-facts.ts'
import type { Identity } from './identity.ts'
import { NodeCertificates } from './node-certificates.ts'
import { version } from './version.ts'

/** Between attempts to open a port that something else holds, in ms. */
const portRetryMs = 2_000

export interface ManagerPortOptions {
  readonly world: MemberWorld
  readonly identity: Identity
  readonly store: Store
  readonly keyring: Keyring
  /** The leader's dispatcher while this manager leads. */
  readonly dispatcher: () => Dispatcher | undefined
  /** Who leads, as far as this manager knows. */
  readonly leader: () => ManagerAddress | undefined
  /** This node's, where another part has them open already. */
  readonly certificates?: NodeCertificates
  readonly members: ManagerMembers
  /** Where a node gets places for its plain containers, while this manager leads. */
  readonly attachments: (nodeId: NodeId) => AttachmentDesk | undefined
  /** What this node can be asked for itself, by whichever manager leads. */
  readonly services: NodeServices
}

/** A manager's certificates, its cluster port, and the cluster's root while it is rotated. */
export class ManagerPort {
  readonly #options: ManagerPortOptions
  readonly #authority: Authority
  readonly #certificates: NodeCertificates
  readonly #transport: TlsTransport
  readonly answers: NodeAnswers
  readonly #renewal: CertificateRenewal
  readonly #stop = new AbortController()
  readonly #looked: Promise<void>
  readonly #wanted = new WakeUp()
  readonly #unsubscribe: () => void
  #port: ClusterPort | undefined
  #renewed = () => {}
  #trusts = () => {}
  #trouble: string | undefined

  private constructor(
    options: ManagerPortOptions,
    authority: Authority,
    certificates: NodeCertificates,
  ) {
    const { clock, random, log } = options.world
    this.#options = options
    this.#authority = authority
    this.#certificates = certificates
    this.#transport = openTlsTransport({
      credentials: () => certificates.credentials(),
      clock,
      log,
    })
    this.answers = new NodeAnswers(this.#transport, options.services, version, log)
    this.#renewal = keepRenewed({
      certificate: () => certificates.certificate,
      renew: () => this.#renew(),
      clock,
      random,
      log,
    })
    this.#unsubscribe = options.store.subscribe(({ changes }) => {
      if (changes.some(({ kind }) => kind === 'cluster' || kind === 'node')) this.#wanted.ring()
    })
    this.#wanted.ring()
    this.#looked = Promise.all([this.#followRoot(), this.#keepOpen()]).then(() => {})
  }

  static async open(options: ManagerPortOptions): Promise<ManagerPort> {
    const { world, identity, store, keyring } = options
    const authority = new Authority({
      store,
      keyring,
      clock: world.clock,
      random: world.random,
      managersRefused: () => undefined,
    })
    const { dataRoot } = world.options
    const found = options.certificates ?? (await NodeCertificates.open(dataRoot, keyring))
    const known = store.view.get('node', identity.nodeId)?.certificate
    if (found && known) return new ManagerPort(options, authority, found)
    // The first start, or state of a release that had no cluster port.
    const keyPem = found?.keyPem ?? createNodeKey().keyPem
    const admission = await authority.renewOwn(identity.nodeId, publicKeyOf(keyPem))
    const chain = clusterOf(store.view).status.crossCertificates ?? []
    const made = await NodeCertificates.make(dataRoot, keyPem, admission, chain)
    return new ManagerPort(options, authority, made)
  }

  get authority(): Authority {
    return this.#authority
  }

  get certificates(): NodeCertificates {
    return this.#certificates
  }

  /** How this manager reaches others. */
  get transport(): Transport {
    return this.#transport
  }

  /** Undefined while it can't be opened. */
  get port(): ClusterPort | undefined {
    return this.#port
  }

  /** While the swarm is locked, the node's own key is sealed with keys that wait for the unlock key. */
  async keepSealed(sealer: Keyring | undefined): Promise<void> {
    await this.#certificates.sealWith(sealer)
  }

  get tls() {
    return this.#certificates.tls
  }

  /** Calls back when this node's certificate is another one. */
  onRenewed(renewed: () => void): void {
    this.#renewed = renewed
  }

  /** Calls back when other roots are trusted. */
  onTrust(trusts: () => void): void {
    this.#trusts = trusts
  }

  /** Has a new certificate made now. */
  async renewNow(): Promise<void> {
    await this.#renew()
  }

  /** Another manager leads, or this one: nodes look for the leader anew. */
  leadershipChanged(): void {
    this.#port?.leadershipChanged()
    this.#wanted.ring()
  }

  /** Why nodes can't reach this manager, in words. */
  trouble(): string | undefined {
    return this.#trouble
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#unsubscribe()
    this.answers.close()
    await this.#renewal.close()
    await this.#looked
    await this.#port?.close()
  }

  async #keepOpen(): Promise<void> {
    const { world, identity, store, dispatcher } = this.#options
    const { clock, random, log } = world
    const { signal } = this.#stop
    while (!signal.aborted && !this.#port) {
      try {
        // It may be an interface, whose address is another one today.
        const { host, port } = chooseListenAddress(identity.listenAddress)
        this.#port = await openClusterPort({
          transport: this.#transport,
          listenAddress: `${host}:${port}`,
          store,
          authority: this.#authority,
          dispatcher,
          leader: this.#options.leader,
          ownAddress: () => identity.address,
          clock,
          random,
          log,
          skepVersion: version,
          members: this.#options.members,
          attachments: this.#options.attachments,
          own: { nodeId: identity.nodeId, ask: (ask) => this.answers.answer(ask) },
        })
        this.#trouble = undefined
        log.info('the cluster port is open', { address: this.#port.address })
      } catch (error) {
        if (this.#trouble === undefined) log.error(messageOf(error), {})
        this.#trouble = messageOf(error)
        await clock.sleep(portRetryMs, signal)
      }
    }
  }

  async #renew(): Promise<void> {
    const { identity, store } = this.#options
    const key = publicKeyOf(this.#certificates.keyPem)
    const admission = await this.#authority.renewOwn(identity.nodeId, key)
    const chain = clusterOf(store.view).status.crossCertificates ?? []
    await this.#certificates.renew(admission, chain)
    this.#transport.credentialsChanged()
    this.#renewed()
  }

  /** Keeps what is trusted here as the cluster says, and lets old roots go once nobody needs them. */
  async #followRoot(): Promise<void> {
    const { world, identity, store, dispatcher } = this.#options
    const { clock, log } = world
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#wanted.wait(clock, signal)
      const [cluster] = store.view.list('cluster')
      if (signal.aborted || !cluster) continue
      try {
        const { status } = cluster
        const chainPem = status.crossCertificates ?? []
        // Where this manager finds the others while it can not read the state.
        const managers = [...store.view.list('node')].flatMap(({ id, manager }) =>
          manager && id !== identity.nodeId ? [manager.address] : [],
        )
        const rootsPem = rootsOf(cluster)
        if (await this.#certificates.learn({ rootsPem, managers, chainPem })) {
          this.#transport.credentialsChanged()
          this.#trusts()
        }
        if (!this.#certificates.isSignedBy(status.root.certificatePem)) this.#renewal.within(0)
        const isOver =
          (status.retiringRoots !== undefined || status.rootRotationInProgress) &&
          dispatcher() !== undefined &&
          isRotationDone(cluster, store.view.list('node'))
        if (isOver) {
          await store.commit([
            { type: 'update', object: { ...cluster, status: endRotation(cluster) } },
          ])
          log.info('the rotation of the root is complete', {})
        }
      } catch (error) {
        if (error instanceof UserError && error.code === 'outOfSequence') {
          await nextCommit(store, clock)
        } else {
          log.warn('the cluster root could not be followed; trying again', {
            error: messageOf(error),
          })
          await clock.sleep(portRetryMs, signal)
        }
        this.#wanted.ring()
      }
    }
  }
}

function publicKeyOf(keyPem: string): string {
  return createPublicKey(keyPem).export({ type: 'spki', format: 'pem' }).toString()
}
