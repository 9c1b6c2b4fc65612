import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { newId, UserError, WakeUp } from '../base/index.ts'
import {
  beginRotation,
  foundCluster,
  issueToken,
  joinCluster,
  openTlsTransport,
  openToken,
  withNewTokens,
  withoutToken,
} from '../cluster/index.ts'
import type {
  InitRequest,
  JoinRequest,
  NodeControl,
  NodeState,
  TokenRotation,
  TokenSummary,
  TokenWish,
} from '../control/index.ts'
import { type Cluster, type ClusterStatus, mintId, type NodeId } from '../model/index.ts'
import {
  createNodeKey,
  createRootCa,
  createUnlockKey,
  type Keyring,
  openKeyring,
  parseUnlockKey,
  rootFromPem,
} from '../security/index.ts'
import { nextCommit, openSqliteStore } from '../store/index.ts'
import type { MemberWorld } from './host.ts'
import {
  chooseAdvertiseAddress,
  chooseDataPathAddress,
  chooseListenAddress,
  findPort,
} from './host-facts.ts'
import {
  dataPaths,
  type Identity,
  readIdentity,
  removeIdentity,
  writeIdentity,
} from './identity.ts'
import { Member } from './member.ts'
import { NodeCertificates } from './node-certificates.ts'
import { version } from './version.ts'
import { WorkerMember } from './worker-member.ts'

/** How long `swarm init` waits for the node's agent and engine. */
const readyWaitMs = 5_000
const sessionLookMs = 20

/** This node's part in a cluster: none, or one member with its manager and agent. */
export class Membership implements NodeControl {
  readonly #world: MemberWorld
  #member: Member | undefined
  #worker: WorkerMember | undefined
  /** Who this node is while its keys wait for a person to unlock them. */
  #locked: Identity | undefined
  /** One change of membership at a time. */
  #changing: Promise<unknown> = Promise.resolve()
  readonly #closing = new AbortController()
  #trouble = ''

  constructor(world: MemberWorld) {
    this.#world = world
  }

  /** The running manager, or undefined while this node is none. */
  get member(): Member | undefined {
    return this.#member
  }

  /** Takes up the cluster that the data root knows of, if any. */
  async resume(): Promise<void> {
    const identity = await readIdentity(this.#world.options.dataRoot)
    if (!identity) return
    if (identity.role === 'worker') {
      const certificates = await NodeCertificates.open(this.#world.options.dataRoot)
      if (!certificates) {
        throw new UserError('internal', 'this node is a worker and has lost its certificate', {
          next: 'Restore the data root from a backup, or empty it and join again.',
        })
      }
      this.#worker = await WorkerMember.open(this.#world, identity, certificates)
      return
    }
    try {
      this.#member = await Member.open(this.#world, identity)
    } catch (error) {
      if (!(error instanceof UserError && error.code === 'locked')) throw error
      this.#locked = identity
      this.#world.log.warn('locked: run `docker swarm unlock`; tasks, traffic and names go on', {})
    }
  }

  state(): NodeState {
    const member = this.#member
    const worker = this.#worker
    if (worker) {
      const { nodeId, address } = worker.identity
      return {
        localNodeState: worker.refusal ? 'error' : 'active',
        nodeId,
        nodeAddress: hostOf(address),
        controlAvailable: false,
        error: worker.refusal ? textOf(worker.refusal) : (worker.agent.trouble() ?? ''),
        remoteManagers: worker.managers.map((manager) => ({ nodeId: '', address: manager })),
      }
    }
    if (!member) {
      return {
        localNodeState: this.#locked ? 'locked' : 'inactive',
        nodeId: '',
        nodeAddress: '',
        controlAvailable: false,
        error: this.#trouble,
        remoteManagers: [],
      }
    }
    const { nodeId, address } = member.identity
    return {
      localNodeState: 'active',
      nodeId,
      nodeAddress: hostOf(address),
      controlAvailable: true,
      error: member.agent.trouble() ?? member.port.trouble() ?? '',
      remoteManagers: [{ nodeId, address }],
    }
  }

  init(request: InitRequest): Promise<NodeId> {
    return this.#exclusively(() => this.#init(request))
  }

  join(request: JoinRequest): Promise<void> {
    return this.#exclusively(() => this.#join(request))
  }

  leave(force: boolean): Promise<void> {
    return this.#exclusively(async () => {
      const member = this.#member
      const locked = this.#locked
      const worker = this.#worker
      if (worker) {
        this.#worker = undefined
        await worker.destroy()
        await removeIdentity(this.#world.options.dataRoot)
        return
      }
      if (!member && !locked)
        throw new UserError('notInCluster', 'This node is not part of a swarm')
      if (!force) {
        throw new UserError(
          'failedPrecondition',
          'You are attempting to leave the swarm on a node that is participating as a manager. ' +
            'Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ',
        )
      }
      this.#member = undefined
      this.#locked = undefined
      if (member) await member.destroy()
      else if (locked) await Member.destroyLocked(this.#world, locked)
      await removeIdentity(this.#world.options.dataRoot)
    })
  }

  async unlock(key: string): Promise<void> {
    await this.#exclusively(async () => {
      if (this.#member) throw new UserError('conflict', 'swarm is not locked')
      if (!this.#locked) throw new UserError('notInCluster', 'This node is not part of a swarm')
      this.#member = await Member.open(this.#world, this.#locked, parseUnlockKey(key))
      this.#locked = undefined
    })
  }

  async unlockKey(): Promise<string | undefined> {
    const { keyring } = this.#memberOrThrow()
    const cluster = this.#cluster()
    const sealed = cluster.spec.autoLock ? cluster.status.unlockKey : undefined
    return sealed && new TextDecoder().decode(keyring.unseal(sealed, `${cluster.id}/unlock`))
  }

  async joinTokens(): Promise<{ readonly worker: string; readonly manager: string }> {
    const { keyring } = this.#memberOrThrow()
    return {
      worker: openToken(keyring, this.#cluster(), 'worker'),
      manager: openToken(keyring, this.#cluster(), 'manager'),
    }
  }

  async createToken(wish: TokenWish): Promise<TokenSummary & { readonly token: string }> {
    const { keyring } = this.#memberOrThrow()
    const { clock, random } = this.#world
    const id = newId(random).slice(0, 8)
    let made: ReturnType<typeof issueToken> | undefined
    await this.#changeStatus((cluster) => {
      made = issueToken(keyring, cluster, id, wish, clock.nowMs())
      return made.status
    })
    if (!made) throw new UserError('internal', 'the join token was not made')
    return { ...made.summary, token: made.token }
  }

  async listTokens(): Promise<readonly TokenSummary[]> {
    this.#memberOrThrow()
    return (this.#cluster().status.issuedTokens ?? []).map((issued) => {
      const { sealed: _, ...summary } = issued
      return summary
    })
  }

  async removeToken(id: string): Promise<void> {
    this.#memberOrThrow()
    await this.#changeStatus((cluster) => withoutToken(cluster, id))
  }

  async rotateTokens(which: TokenRotation): Promise<void> {
    const member = this.#memberOrThrow()
    const { keyring } = member
    if (which.worker || which.manager || which.unlockKey) await this.#rotate(keyring, which)
    // Nobody is told that the swarm is locked, or with which key, before this node's disk is.
    await member.keepLocked()
  }

  async #rotate(keyring: Keyring, which: TokenRotation): Promise<void> {
    const roles = (['worker', 'manager'] as const).filter((role) => which[role])
    const nowMs = this.#world.clock.nowMs()
    await this.#changeStatus((cluster) => ({
      ...withNewTokens(keyring, cluster, roles, nowMs),
      ...(which.unlockKey
        ? { unlockKey: keyring.seal(encode(createUnlockKey()), `${cluster.id}/unlock`) }
        : {}),
    }))
  }

  rotateRoot(wanted: {
    readonly certificatePem?: string
    readonly keyPem?: string
  }): Promise<void> {
    // One at a time: each is signed by the root before it.
    return this.#exclusively(async () => {
      const { keyring, port } = this.#memberOrThrow()
      const { clock } = this.#world
      const root =
        wanted.certificatePem !== undefined && wanted.keyPem !== undefined
          ? await rootFromPem(wanted.certificatePem, wanted.keyPem, clock.nowMs())
          : await createRootCa(clock.nowMs())
      const cluster = this.#cluster()
      const old = port.authority.rootCa(cluster)
      const next = await beginRotation(keyring, cluster, old, root)
      await this.#changeStatus((current) => next(current, clock.nowMs()))
    })
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#changing.catch(() => {})
    await this.#member?.close()
    await this.#worker?.close()
    this.#member = undefined
    this.#worker = undefined
  }

  async #init(request: InitRequest): Promise<NodeId> {
    if (this.#member || this.#locked || this.#worker) throw alreadyInCluster()
    const { options, clock, random, log } = this.#world
    // Before anything is made: a port that is taken is no cluster.
    const listen = await findPort(chooseListenAddress(listenOf(request, options)))
    const listenAddress = `${listen.host}:${listen.port}`
    const advertise = chooseAdvertiseAddress(request.advertiseAddress, listen.port)
    const identity: Identity = {
      nodeId: mintId(random),
      address: `${advertise.host}:${advertise.port}`,
      listenAddress,
      ...dataPathOf(request.dataPathAddress),
    }
    const paths = dataPaths(options.dataRoot)
    await removeIdentity(options.dataRoot)
    await mkdir(paths.cluster, { recursive: true, mode: 0o700 })
    const keyring = await openKeyring({ path: paths.keys })
    const objects = await foundCluster(
      request,
      {
        nodeId: identity.nodeId,
        hostname: hostname(),
        host: advertise.host,
        address: identity.address,
      },
      { keyring, random, nowMs: clock.nowMs() },
    )
    const store = await openSqliteStore({ path: paths.store, clock, log })
    try {
      await store.commit(objects.map((object) => ({ type: 'create' as const, object })))
    } finally {
      await store.close()
    }
    await writeIdentity(options.dataRoot, identity)
    const member = await Member.open(this.#world, identity)
    this.#member = member
    await member.keepLocked()
    await this.#untilReady(member)
    return identity.nodeId
  }

  async #join(request: JoinRequest): Promise<void> {
    if (this.#member || this.#locked || this.#worker) throw alreadyInCluster()
    const { options, clock, log } = this.#world
    const listen = chooseListenAddress(listenOf(request, options))
    const advertise = request.advertiseAddress
      ? chooseAdvertiseAddress(request.advertiseAddress, listen.port).host
      : ''
    const dataPath = dataPathOf(request.dataPathAddress)
    const { keyPem } = createNodeKey()
    const transport = openTlsTransport({ credentials: () => undefined, clock, log })
    const joined = await joinCluster(
      { transport, clock, skepVersion: version },
      {
        token: request.joinToken,
        keyPem,
        addresses: request.remoteAddresses,
        hostname: hostname(),
        availability: request.availability,
        advertiseAddress: advertise,
      },
      this.#closing.signal,
    )
    const { admission } = joined
    await removeIdentity(options.dataRoot)
    const identity: Identity = {
      nodeId: admission.nodeId,
      address: `${admission.nodeAddress}:${listen.port}`,
      listenAddress: `${listen.host}:${listen.port}`,
      role: 'worker',
      ...dataPath,
    }
    // The manager may be reached by another address than the one it tells: that one goes last.
    const known = admission.managers.map(({ address }) => address)
    const certificates = await NodeCertificates.make(options.dataRoot, keyPem, admission)
    await certificates.learn({
      rootsPem: admission.rootsPem,
      managers: [...new Set([...known, joined.managerAddress])],
    })
    await writeIdentity(options.dataRoot, identity)
    const worker = await WorkerMember.open(this.#world, identity, certificates)
    this.#worker = worker
    const untilMs = clock.nowMs() + readyWaitMs
    while (!worker.isInSession && clock.nowMs() < untilMs) await clock.sleep(sessionLookMs)
  }

  /** The next command shall find a node that is ready. An engine that is away does not hold it up for long. */
  async #untilReady({ store, identity }: Member): Promise<void> {
    const { clock } = this.#world
    const untilMs = clock.nowMs() + readyWaitMs
    const changed = new WakeUp()
    const unsubscribe = store.subscribe(() => changed.ring())
    try {
      const isReady = () => store.view.get('node', identity.nodeId)?.status.state === 'ready'
      while (!isReady() && clock.nowMs() < untilMs) {
        await changed.wait(clock, new AbortController().signal, untilMs)
      }
    } finally {
      unsubscribe()
    }
  }

  #memberOrThrow(): Member {
    if (this.#member) return this.#member
    throw new UserError('notInCluster', 'This node is not part of a swarm')
  }

  #cluster(): Cluster {
    for (const cluster of this.#memberOrThrow().store.view.list('cluster')) return cluster
    throw new UserError('internal', 'the store holds no cluster')
  }

  async #changeStatus(change: (cluster: Cluster) => ClusterStatus): Promise<void> {
    const { store } = this.#memberOrThrow()
    for (;;) {
      const cluster = this.#cluster()
      try {
        await store.commit([
          { type: 'update', object: { ...cluster, status: change(cluster) }, specChanged: true },
        ])
        return
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(store, this.#world.clock)
      }
    }
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#changing.then(work, work)
    this.#changing = turn.catch(() => {})
    return turn
  }
}

function alreadyInCluster(): UserError {
  return new UserError(
    'alreadyInCluster',
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.',
  )
}

/** What the docker command sends when nobody said anything. */
const listenAddressOfCli = '0.0.0.0:2377'

/** Where a person wants the cluster port, or else the daemon's own flag. */
function listenOf(
  { listenAddress }: { readonly listenAddress: string },
  options: MemberWorld['options'],
): string {
  const isSaid = listenAddress !== '' && listenAddress !== listenAddressOfCli
  return isSaid ? listenAddress : options.listenAddress
}

/** An address without its port. */
function hostOf(address: string): string {
  return address.replace(/:\d+$/, '')
}

function textOf({ message, next }: UserError): string {
  return next === undefined ? message : `${message}. ${next}`
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** An address or the name of an interface; empty: the node's own address, which needs no telling. */
function dataPathOf(wanted: string): Pick<Identity, 'dataPathAddress'> {
  return wanted === '' ? {} : { dataPathAddress: chooseDataPathAddress(wanted) }
}
