import { mkdir, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import type { Agent } from '../agent/index.ts'
import { messageOf, newId, UserError, WakeUp } from '../base/index.ts'
import {
  announceReturn,
  askToBeMember,
  beginRotation,
  type Closing,
  confirmMember,
  fetchDataKeys,
  foundCluster,
  issueToken,
  joinCluster,
  openTlsTransport,
  openToken,
  renewCertificate,
  type Transport,
  withdrawJoin,
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
import { decideQuorum } from '../control/index.ts'
import { type Cluster, type ClusterStatus, mintId, type NodeId } from '../model/index.ts'
import {
  createNodeKey,
  createRootCa,
  createUnlockKey,
  importKeyring,
  type Keyring,
  openKeyring,
  parseNodeCertificate,
  parseUnlockKey,
  rootFromPem,
} from '../security/index.ts'
import { openEtcdStore } from '../store/etcd/index.ts'
import { nextCommit, openSqliteStore, sealedValues } from '../store/index.ts'
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
import { Member, type SharedState } from './member.ts'
import { MemberEtcd } from './member-etcd.ts'
import type { NodeAttachments } from './node-attachments.ts'
import { NodeCertificates } from './node-certificates.ts'
import { decideOwnAddress, hostOf } from './own-address.ts'
import { describeQuorumLoss } from './quorum-loss.ts'
import { belongsToAnother } from './settle-address.ts'
import { version } from './version.ts'
import { WorkerMember } from './worker-member.ts'

/** How long `swarm init` waits for the node's agent and engine. */
const readyWaitMs = 5_000
const sessionLookMs = 20
/** For etcd to answer at a start, in ms, before the daemon goes on without the state. */
const firstWaitMs = 2_500
/** Between attempts to read the state while no majority of the managers answers, in ms. */
const stateRetryMs = 1_000
/** Between attempts to become what people want this node to be, in ms. */
const roleRetryMs = 5_000

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
  /** While the state of a manager is out of reach, its tasks go on as those of a worker: why, in words. */
  #waitsBecause: string | undefined
  #waitsSinceMs: number | undefined
  #stopWaiting = new AbortController()
  #etcd: MemberEtcd | undefined
  #waitingKeyring: Keyring | undefined
  /** Between two parts in the same cluster: who this node is, and what it does. */
  #between: { readonly identity: Identity; readonly why: string } | undefined
  /** Why this node's address may be wrong. */
  #addressDoubt: UserError | undefined
  #changed = () => {}
  #changesRole = false

  constructor(world: MemberWorld) {
    this.#world = world
  }

  /** The running manager, or undefined while this node is none. */
  get member(): Member | undefined {
    return this.#member
  }

  /** What drives this node's tasks, whatever its part in the cluster. */
  get agent(): Agent | undefined {
    return (this.#member ?? this.#worker)?.agent
  }

  /** Places of this node's plain containers, whatever its part in the cluster. */
  get attachments(): NodeAttachments | undefined {
    return (this.#member ?? this.#worker)?.attachments
  }

  /** Takes up the cluster that the data root knows of, if any. */
  async resume(): Promise<void> {
    const noted = await readIdentity(this.#world.options.dataRoot)
    if (!noted) return
    if (noted.role === 'worker') {
      const identity = this.#located(noted)
      if (identity !== noted) await writeIdentity(this.#world.options.dataRoot, identity)
      const certificates = await NodeCertificates.open(this.#world.options.dataRoot)
      if (!certificates) {
        throw new UserError('internal', 'this node is a worker and has lost its certificate', {
          next: 'Restore the data root from a backup, or empty it and join again.',
        })
      }
      // One is enough, the leader as last known: with many nodes each call counts.
      void this.#announceReturn(certificates, certificates.managers.slice(0, 1))
      this.#beginWorker(await WorkerMember.open(this.#world, identity, certificates))
      return
    }
    await this.#exclusively(() => this.#openManager(noted)).catch((error: unknown) => {
      if (!(error instanceof UserError && error.code === 'locked')) throw error
      this.#locked = noted
      this.#world.log.warn('locked: run `docker swarm unlock`; tasks, traffic and names go on', {})
    })
  }

  /** Calls back when this node has become a manager, or none, without a call that asked for it. */
  onChanged(changed: () => void): void {
    this.#changed = changed
  }

  /** This node by the address that it has now. */
  #located(noted: Identity): Identity {
    const { options, log } = this.#world
    const { identity, doubt } = decideOwnAddress(noted, options.advertiseAddress)
    if (doubt && doubt.message !== this.#addressDoubt?.message) log.error(doubt.message, {})
    this.#addressDoubt = doubt
    return identity
  }

  async #openManager(noted: Identity, unlockKey?: Uint8Array): Promise<void> {
    const { dataRoot } = this.#world.options
    const identity = this.#located(noted)
    const path = dataPaths(dataRoot).keys
    const keyring = await openKeyring({ path, ...(unlockKey ? { unlockKey } : {}) })
    if (identity.store !== 'etcd') {
      this.#begin(await Member.open(this.#world, identity, { keyring }))
      return
    }
    const certificates = await NodeCertificates.open(dataRoot, keyring)
    if (!certificates) {
      throw new UserError('internal', 'this node is a manager and has lost its certificate', {
        next: 'Restore the data root from a backup, or empty it and join again.',
      })
    }
    const others = certificates.managers.filter((address) => address !== noted.address)
    // Before anything is started with it.
    if (others.includes(identity.address)) throw belongsToAnother(identity.address)
    void this.#announceReturn(certificates, others)
    const etcd = await MemberEtcd.start(this.#world, identity, certificates, { type: 'restart' })
    await this.#openShared(identity, keyring, certificates, etcd)
  }

  /** Much has to start before this node can have a session, etcd on a manager. Nobody shall replace its tasks meanwhile. */
  async #announceReturn(
    certificates: NodeCertificates,
    managers: readonly string[],
  ): Promise<void> {
    const { clock, log } = this.#world
    const credentials = () => certificates.credentials()
    const transport = openTlsTransport({ credentials, clock, log })
    const world = { transport, clock, skepVersion: version }
    await announceReturn(world, managers, this.#closing.signal)
  }

  /** Opens the state that this manager shares with others; waits for them in the background when too few are there. */
  async #openShared(
    identity: Identity,
    keyring: Keyring,
    certificates: NodeCertificates,
    etcd: MemberEtcd,
  ): Promise<void> {
    this.#etcd = etcd
    this.#waitingKeyring = keyring
    etcd.onRemoved(() => this.#later(() => this.#becomeWorker()))
    const open = async (): Promise<void> => {
      const { clock, random, log } = this.#world
      const { client } = etcd
      const values = sealedValues(keyring.storeKeys())
      const writer = identity.nodeId
      const store = await openEtcdStore({ client, values, clock, random, log, writer })
      // The network may have come up only now.
      const now = this.#located(identity)
      this.#between = { identity: now, why: 'this node takes up its part as a manager' }
      await this.#worker?.close()
      this.#worker = undefined
      const shared: SharedState = { etcd, store, certificates }
      const member = await Member.open(this.#world, now, { keyring, shared })
      this.#waitsBecause = undefined
      this.#waitsSinceMs = undefined
      this.#begin(member)
    }
    const wait = async (error: unknown): Promise<void> => {
      this.#waitsBecause = error instanceof UserError ? textOf(error) : messageOf(error)
      this.#worker ??= await WorkerMember.open(this.#world, identity, certificates)
      this.#between = undefined
      if (isUnavailable(error)) await this.#explainWaiting(this.#worker)
    }
    try {
      await etcd.untilAnswers(firstWaitMs)
      await open()
    } catch (error) {
      if (!isUnavailable(error)) {
        this.#between = undefined
        await etcd.close()
        throw error
      }
      const { log } = this.#world
      log.warn('no majority of the managers answers; tasks, traffic and names go on', {
        why: error.message,
      })
      await wait(error)
      this.#stopWaiting = new AbortController()
      void this.#waitForState(open, wait, this.#stopWaiting.signal)
    }
  }

  async #explainWaiting({ managers, transport, identity }: WorkerMember): Promise<void> {
    const { clock } = this.#world
    this.#waitsSinceMs ??= clock.nowMs()
    const others = managers.filter((address) => address !== identity.address)
    const loss = await describeQuorumLoss(
      others.map((address) => ({ address })),
      { transport, clock, sinceMs: this.#waitsSinceMs },
    )
    this.#waitsBecause = textOf(loss)
  }

  async #waitForState(
    open: () => Promise<void>,
    wait: (error: unknown) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, log } = this.#world
    while (!signal.aborted) {
      await clock.sleep(stateRetryMs, signal)
      if (signal.aborted) return
      try {
        await this.#exclusively(async () => {
          if (!signal.aborted) await open()
        })
        this.#changed()
        return
      } catch (error) {
        if (signal.aborted) return
        log.debug('the state is still out of reach', { error: messageOf(error) })
        await this.#exclusively(async () => {
          if (!signal.aborted) await wait(error)
        })
      }
    }
  }

  /** This node is a manager from now on. */
  #begin(member: Member): void {
    this.#between = undefined
    this.#member = member
    member.onRemoved(() => this.#later(() => this.#becomeWorker()))
  }

  /** This node is a worker from now on. */
  #beginWorker(worker: WorkerMember): void {
    this.#between = undefined
    this.#worker = worker
    worker.onPromoted(() => this.#later(() => this.#becomeManager()))
  }

  /** Changes what this node is, as the managers want it, until that is done. */
  #later(change: () => Promise<void>): void {
    if (this.#changesRole) return
    this.#changesRole = true
    const { clock, log } = this.#world
    const { signal } = this.#closing
    void (async () => {
      while (!signal.aborted) {
        try {
          await this.#exclusively(change)
          break
        } catch (error) {
          log.warn('this node could not take the role it is given; trying again', {
            error: messageOf(error),
          })
          await clock.sleep(roleRetryMs, signal)
        }
      }
      this.#changesRole = false
      this.#changed()
    })()
  }

  async #becomeManager(): Promise<void> {
    const worker = this.#worker
    if (!worker || this.#waitsBecause !== undefined) return
    const { log } = this.#world
    const { signal } = this.#closing
    const { certificates, identity, transport } = worker
    // It may have been demoted again since it began to try.
    if (certificates.certificate.role !== worker.wantedRole) await worker.renewNow(signal)
    if (certificates.certificate.role !== 'manager') {
      log.info('this node stays a worker: it was demoted before it had become a manager')
      return
    }
    const { store: _, wasManager: _former, ...rest } = identity
    await this.#takePart({ ...rest, role: 'manager' }, certificates, transport, async () => {
      this.#between = { identity, why: 'this node becomes a manager' }
      await worker.close()
      this.#worker = undefined
    })
  }

  /** Has the managers take this node in among those who keep the state. Its certificate says already that it is one. */
  async #takePart(
    identity: Identity,
    certificates: NodeCertificates,
    transport: Transport,
    before: () => Promise<void>,
  ): Promise<void> {
    const { options, clock } = this.#world
    const { signal } = this.#closing
    const world = { transport, clock, skepVersion: version }
    const managers = certificates.managers.filter((address) => address !== identity.address)
    const paths = dataPaths(options.dataRoot)
    const text = await fetchDataKeys(world, managers, signal)
    const { memberId, token, members } = await askToBeMember(
      world,
      managers,
      identity.address,
      signal,
    )
    // What an earlier part of this node has left.
    await rm(paths.etcd, { recursive: true, force: true })
    const begin = { type: 'join', token, members } as const
    const etcd = await MemberEtcd.start(this.#world, identity, certificates, begin)
    let keyring: Keyring
    try {
      await etcd.untilAnswers()
      await confirmMember(world, managers, memberId, signal)
      keyring = await importKeyring({ path: paths.keys, text })
      await writeIdentity(options.dataRoot, { ...identity, role: 'manager', store: 'etcd' })
    } catch (error) {
      await etcd.close()
      throw error
    }
    await before()
    await this.#openShared({ ...identity, store: 'etcd' }, keyring, certificates, etcd)
  }

  /** The managers have taken this node off their list, while it worked or while it was away. */
  async #becomeWorker(): Promise<void> {
    const member = this.#member
    const waiting = this.#waitsBecause === undefined ? undefined : this.#worker
    const { certificates, transport } = member?.port ?? waiting ?? {}
    const identity = (member ?? waiting)?.identity
    if (!certificates || !transport || !identity) return
    const { options, clock, log } = this.#world
    const world = { transport, clock, skepVersion: version }
    const { managers, keyPem } = certificates
    const others = managers.filter((address) => address !== identity.address)
    const admission = await renewCertificate(world, keyPem, others, this.#closing.signal)
    // No change of the swarm may seal it again: the keys that open it go.
    if (member) await member.endLock()
    else await certificates.sealWith(undefined)
    await certificates.renew(admission)
    const { store: _, ...rest } = identity
    const asWorker: Identity = { ...rest, role: 'worker', wasManager: true }
    await writeIdentity(options.dataRoot, asWorker)
    this.#stopWaiting.abort()
    this.#between = { identity: asWorker, why: 'this node becomes a worker' }
    this.#waitsBecause = undefined
    this.#member = undefined
    await member?.close()
    await waiting?.close()
    if (waiting) await this.#etcd?.close()
    this.#etcd = undefined
    const paths = dataPaths(options.dataRoot)
    for (const path of [paths.etcd, paths.keys]) await rm(path, { recursive: true, force: true })
    this.#beginWorker(await WorkerMember.open(this.#world, asWorker, certificates))
    log.info('this node is a worker now', {})
  }

  state(): NodeState {
    const member = this.#member
    const worker = this.#worker
    if (worker && this.#waitsBecause !== undefined) {
      const { nodeId, address } = worker.identity
      return {
        localNodeState: 'pending',
        nodeId,
        nodeAddress: hostOf(address),
        controlAvailable: false,
        error: this.#waitsBecause,
        remoteManagers: worker.managers.map((manager) => ({ nodeId: '', address: manager })),
      }
    }
    if (worker) {
      const { nodeId, address } = worker.identity
      return {
        localNodeState: worker.refusal ? 'error' : 'active',
        nodeId,
        nodeAddress: hostOf(address),
        controlAvailable: false,
        error: worker.refusal
          ? textOf(worker.refusal)
          : (worker.agent.trouble() ?? (this.#addressDoubt ? textOf(this.#addressDoubt) : '')),
        remoteManagers: worker.managers.map((manager) => ({ nodeId: '', address: manager })),
      }
    }
    if (!member && this.#between) {
      const { identity, why } = this.#between
      return {
        localNodeState: 'pending',
        nodeId: identity.nodeId,
        nodeAddress: hostOf(identity.address),
        controlAvailable: false,
        error: `${why} just now: try again in a moment`,
        remoteManagers: [],
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
      error:
        member.quorumTrouble() ??
        member.agent.trouble() ??
        member.port.trouble() ??
        (this.#addressDoubt ? textOf(this.#addressDoubt) : ''),
      remoteManagers: remoteManagersOf(member),
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
      if (worker && this.#waitsBecause === undefined) {
        this.#worker = undefined
        await worker.destroy()
        await removeIdentity(this.#world.options.dataRoot)
        return
      }
      if (!member && !locked && !worker)
        throw new UserError('notInCluster', 'This node is not part of a swarm')
      if (!force) {
        throw new UserError(
          'failedPrecondition',
          'You are attempting to leave the swarm on a node that is participating as a manager. ' +
            'Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ',
        )
      }
      if (member) {
        refuseLossOfQuorum(member)
        await member.resign()
      }
      this.#member = undefined
      this.#locked = undefined
      this.#stopWaiting.abort()
      if (member) await member.destroy()
      else if (worker) {
        this.#worker = undefined
        this.#waitsBecause = undefined
        await worker.destroy()
        await this.#etcd?.close()
      } else if (locked) await Member.destroyLocked(this.#world, locked)
      await removeIdentity(this.#world.options.dataRoot)
    })
  }

  async unlock(key: string): Promise<void> {
    await this.#exclusively(async () => {
      if (this.#member) throw new UserError('conflict', 'swarm is not locked')
      if (!this.#locked) throw new UserError('notInCluster', 'This node is not part of a swarm')
      await this.#openManager(this.#locked, parseUnlockKey(key))
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

  /** Ends this node's part, in order; `because` tells the managers whether to wait for it. */
  async close(because: Closing): Promise<void> {
    this.#closing.abort()
    this.#stopWaiting.abort()
    await this.#changing.catch(() => {})
    await this.#member?.close(because)
    await this.#worker?.close(because)
    if (!this.#member) await this.#etcd?.close()
    this.#member = undefined
    this.#worker = undefined
  }

  async #init(request: InitRequest): Promise<NodeId> {
    if (request.forceNewCluster) {
      const forced = await this.#forceNew()
      if (forced) return forced
    }
    if (this.#member || this.#locked || this.#worker) throw alreadyInCluster()
    const { options, clock, random, log } = this.#world
    // Before anything is made: a port that is taken is no cluster.
    const listen = await findPort(chooseListenAddress(listenOf(request, options)))
    const listenAddress = `${listen.host}:${listen.port}`
    const wanted = request.advertiseAddress || options.advertiseAddress
    const advertise = chooseAdvertiseAddress(wanted, listen.port)
    const identity = withInterface({
      nodeId: mintId(random),
      address: `${advertise.host}:${advertise.port}`,
      listenAddress,
      ...dataPathOf(request.dataPathAddress),
    })
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
    const store = await openSqliteStore({
      path: paths.store,
      keys: keyring.storeKeys(),
      clock,
      log,
    })
    try {
      await store.commit(objects.map((object) => ({ type: 'create' as const, object })))
    } finally {
      await store.close()
    }
    await writeIdentity(options.dataRoot, identity)
    const member = await Member.open(this.#world, identity, { keyring })
    this.#begin(member)
    await member.keepLocked()
    await this.#untilReady(member)
    return identity.nodeId
  }

  /** Makes this manager the only one, with the state as its own disk has it. Undefined where it is in no cluster. */
  async #forceNew(): Promise<NodeId | undefined> {
    const { options, log } = this.#world
    const noted = await readIdentity(options.dataRoot)
    if (!noted) return undefined
    const identity = this.#located(noted)
    if (this.#locked) {
      throw new UserError(
        'locked',
        'this manager is locked, so its state can not be read: unlock it first',
        { next: 'Run `docker swarm unlock`, then this again.' },
      )
    }
    if (identity.role === 'worker') {
      throw new UserError(
        'failedPrecondition',
        'this node is a worker: it has no state of the swarm to begin anew with',
        { next: 'Run it on a manager, or restore a backup with `skep backup restore`.' },
      )
    }
    // The only manager there is anyway.
    if (identity.store !== 'etcd') return identity.nodeId
    const path = dataPaths(options.dataRoot).keys
    const keyring = this.#member?.keyring ?? this.#waitingKeyring ?? (await openKeyring({ path }))
    this.#stopWaiting.abort()
    const member = this.#member
    this.#member = undefined
    await member?.close()
    await this.#worker?.close()
    this.#worker = undefined
    if (!member) await this.#etcd?.close()
    this.#waitsBecause = undefined
    const certificates = await NodeCertificates.open(options.dataRoot, keyring)
    if (!certificates) throw new UserError('internal', 'this manager has lost its certificate')
    log.warn('beginning anew with this manager alone, as a person wants it', {})
    const etcd = await MemberEtcd.start(this.#world, identity, certificates, { type: 'forceNew' })
    await this.#openShared(identity, keyring, certificates, etcd)
    const alone = this.#memberOrThrow()
    await this.#giveUpOthers(alone)
    const untilMs = this.#world.clock.nowMs() + readyWaitMs
    while (!alone.isLeader && this.#world.clock.nowMs() < untilMs) {
      await this.#world.clock.sleep(sessionLookMs)
    }
    await this.#untilReady(alone)
    return identity.nodeId
  }

  /** The managers that were lost are none any more. */
  async #giveUpOthers({ store, identity }: Member): Promise<void> {
    const { clock } = this.#world
    for (;;) {
      const lost = [...store.view.list('node')].filter(
        ({ id, spec }) => spec.role === 'manager' && id !== identity.nodeId,
      )
      const changes = lost.map((before) => {
        const { manager: _, ...node } = before
        const spec = { ...node.spec, role: 'worker' as const }
        const message = 'given up with --force-new-cluster'
        const status = { ...node.status, state: 'down' as const, message, sinceMs: clock.nowMs() }
        return { type: 'update', object: { ...node, spec, status }, specChanged: true } as const
      })
      try {
        if (changes.length > 0) await store.commit(changes)
        return
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(store, clock)
      }
    }
  }

  async #join(request: JoinRequest): Promise<void> {
    if (this.#member || this.#locked || this.#worker) throw alreadyInCluster()
    const { options, clock, log } = this.#world
    const listen = chooseListenAddress(listenOf(request, options))
    const wanted = request.advertiseAddress || options.advertiseAddress
    const advertise = wanted === '' ? '' : chooseAdvertiseAddress(wanted, listen.port).host
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
    const identity = withInterface({
      nodeId: admission.nodeId,
      address: `${admission.nodeAddress}:${listen.port}`,
      listenAddress: `${listen.host}:${listen.port}`,
      role: parseNodeCertificate(admission.certificatePem).role,
      ...dataPath,
    })
    // The manager may be reached by another address than the one it tells: that one goes last.
    const known = admission.managers.map(({ address }) => address)
    const certificates = await NodeCertificates.make(options.dataRoot, keyPem, admission)
    await certificates.learn({
      rootsPem: admission.rootsPem,
      managers: [...new Set([...known, joined.managerAddress])],
    })
    if (identity.role === 'manager') {
      await this.#joinAsManager(identity, certificates)
      return
    }
    await writeIdentity(options.dataRoot, identity)
    const worker = await WorkerMember.open(this.#world, identity, certificates)
    this.#beginWorker(worker)
    const untilMs = clock.nowMs() + readyWaitMs
    while (!worker.isInSession && clock.nowMs() < untilMs) await clock.sleep(sessionLookMs)
  }

  /** All or nothing: a host that could not take part is in no cluster, and the managers forget it. */
  async #joinAsManager(identity: Identity, certificates: NodeCertificates): Promise<void> {
    const { options, clock, log } = this.#world
    const transport = openTlsTransport({
      credentials: () => certificates.credentials(),
      clock,
      log,
    })
    try {
      await this.#takePart(identity, certificates, transport, async () => {})
    } catch (error) {
      const world = { transport, clock, skepVersion: version }
      await withdrawJoin(world, certificates.managers, this.#closing.signal).catch(
        (failure: unknown) =>
          log.warn('no manager knows that this node did not join after all', {
            error: messageOf(failure),
          }),
      )
      await removeIdentity(options.dataRoot)
      throw notJoined(error)
    }
    if (this.#member) await this.#untilReady(this.#member)
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

/** Refuses to leave where the managers that stay could agree on nothing any more. */
function refuseLossOfQuorum({ store, identity }: Member): void {
  const managers = [...store.view.list('node')].flatMap(({ id, name, spec, manager }) =>
    spec.role === 'manager'
      ? [{ id, name, isReachable: manager?.reachability !== 'unreachable' }]
      : [],
  )
  // The last one may: the cluster ends with it, and that was asked for.
  if (managers.length <= 1) return
  const verdict = decideQuorum(managers, { type: 'demote', id: identity.nodeId })
  if (!verdict.isKept)
    throw new UserError('failedPrecondition', verdict.because, { next: verdict.next })
}

function remoteManagersOf({ store, identity }: Member): NodeState['remoteManagers'] {
  const { nodeId, address } = identity
  const others = [...store.view.list('node')].flatMap(({ id, manager }) =>
    manager && id !== nodeId ? [{ nodeId: id, address: manager.address }] : [],
  )
  return [{ nodeId, address }, ...others]
}

/** Why a host is in no cluster after all, though its token was taken. */
function notJoined(error: unknown): UserError {
  const { code, next } =
    error instanceof UserError ? error : { code: 'internal' as const, next: undefined }
  const again = 'Join again once that is mended: nothing of this attempt is left.'
  return new UserError(code, `this host did not become a manager: ${messageOf(error)}`, {
    next: next === undefined ? again : `${next.replace(/\.$/, '')}. ${again}`,
    cause: error,
  })
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

/** As it was just chosen, with the interface it is on. */
function withInterface(identity: Identity): Identity {
  return decideOwnAddress(identity, '').identity
}

function textOf({ message, next }: UserError): string {
  return next === undefined ? message : `${message}. ${next}`
}

function isUnavailable(error: unknown): error is UserError {
  return error instanceof UserError && error.code === 'unavailable'
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** An address or the name of an interface; empty: the node's own address, which needs no telling. */
function dataPathOf(wanted: string): Pick<Identity, 'dataPathAddress'> {
  return wanted === '' ? {} : { dataPathAddress: chooseDataPathAddress(wanted) }
}
