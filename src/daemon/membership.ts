import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { UserError, WakeUp } from '../base/index.ts'
import {
  type InitRequest,
  initialNetworks,
  type NodeControl,
  type NodeState,
  type TokenRotation,
} from '../control/index.ts'
import {
  type Cluster,
  type ClusterId,
  type ClusterNode,
  type ClusterStatus,
  defaultNamespace,
  mintId,
  type NodeId,
} from '../model/index.ts'
import {
  createJoinToken,
  createRootCa,
  createUnlockKey,
  describeRoot,
  type Keyring,
  openKeyring,
  parseUnlockKey,
  rootFromPem,
} from '../security/index.ts'
import { nextCommit, openSqliteStore } from '../store/index.ts'
import { chooseAdvertiseAddress } from './host-facts.ts'
import {
  dataPaths,
  type Identity,
  readIdentity,
  removeIdentity,
  writeIdentity,
} from './identity.ts'
import { Member, type MemberWorld } from './member.ts'

/** How long `swarm init` waits for the node's agent and engine. */
const readyWaitMs = 5_000
const clusterPortDefault = 2377
const addressPoolDefault = '10.0.0.0/8'
const subnetSizeDefault = 24
const dataPathPortDefault = 4789

/** This node's part in a cluster: none, or one member with its manager and agent. */
export class Membership implements NodeControl {
  readonly #world: MemberWorld
  #member: Member | undefined
  /** Who this node is while its keys wait for a person to unlock them. */
  #locked: Identity | undefined
  /** One change of membership at a time. */
  #changing: Promise<unknown> = Promise.resolve()
  #trouble = ''

  constructor(world: MemberWorld) {
    this.#world = world
  }

  /** The running member, or undefined while this node is in no cluster. */
  get member(): Member | undefined {
    return this.#member
  }

  /** Takes up the cluster that the data root knows of, if any. */
  async resume(): Promise<void> {
    const identity = await readIdentity(this.#world.options.dataRoot)
    if (!identity) return
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
      nodeAddress: address.replace(/:\d+$/, ''),
      controlAvailable: true,
      error: member.agent.trouble() ?? '',
      remoteManagers: [{ nodeId, address }],
    }
  }

  init(request: InitRequest): Promise<NodeId> {
    return this.#exclusively(() => this.#init(request))
  }

  async join(): Promise<void> {
    if (this.#member) throw alreadyInCluster()
    throw new UserError(
      'unsupported',
      'this version of Skep runs clusters of one node: joining is not possible yet',
      {
        next: 'Make this host a cluster of its own with `docker swarm init`.',
      },
    )
  }

  leave(force: boolean): Promise<void> {
    return this.#exclusively(async () => {
      const member = this.#member
      const locked = this.#locked
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
    const { id, status } = this.#cluster()
    const open = (role: 'worker' | 'manager') =>
      new TextDecoder().decode(keyring.unseal(status.joinTokens[role], `${id}/join/${role}`))
    return { worker: open('worker'), manager: open('manager') }
  }

  async rotateTokens(which: TokenRotation): Promise<void> {
    const member = this.#memberOrThrow()
    const { keyring } = member
    if (which.worker || which.manager || which.unlockKey) await this.#rotate(keyring, which)
    // Nobody is told that the swarm is locked, or with which key, before this node's disk is.
    await member.keepLocked()
  }

  async #rotate(keyring: Keyring, which: TokenRotation): Promise<void> {
    await this.#changeStatus((cluster) => ({
      ...cluster.status,
      joinTokens: {
        worker: which.worker
          ? sealToken(keyring, cluster, 'worker')
          : cluster.status.joinTokens.worker,
        manager: which.manager
          ? sealToken(keyring, cluster, 'manager')
          : cluster.status.joinTokens.manager,
      },
      ...(which.unlockKey
        ? { unlockKey: keyring.seal(encode(createUnlockKey()), `${cluster.id}/unlock`) }
        : {}),
    }))
  }

  async rotateRoot(wanted: {
    readonly certificatePem?: string
    readonly keyPem?: string
  }): Promise<void> {
    const { keyring, agent } = this.#memberOrThrow()
    const { clock } = this.#world
    const root =
      wanted.certificatePem !== undefined && wanted.keyPem !== undefined
        ? await rootFromPem(wanted.certificatePem, wanted.keyPem, clock.nowMs())
        : await createRootCa(clock.nowMs())
    const described = await describeRoot(root.certificatePem)
    await this.#changeStatus((cluster) => {
      const next: Cluster = {
        ...cluster,
        status: {
          ...cluster.status,
          root: { ...described, key: keyring.seal(encode(root.keyPem), `${cluster.id}/root`) },
        },
      }
      // Tokens carry the root's digest, so both are new.
      return {
        ...next.status,
        joinTokens: {
          worker: sealToken(keyring, next, 'worker'),
          manager: sealToken(keyring, next, 'manager'),
        },
      }
    })
    await agent.describeAgain()
  }

  async close(): Promise<void> {
    await this.#changing.catch(() => {})
    await this.#member?.close()
    this.#member = undefined
  }

  async #init(request: InitRequest): Promise<NodeId> {
    if (this.#member || this.#locked) throw alreadyInCluster()
    const { options, clock, random, log } = this.#world
    const listenAddress = request.listenAddress || options.listenAddress
    const listenPort = Number(/:(\d+)$/.exec(listenAddress)?.[1] ?? clusterPortDefault)
    const advertise = chooseAdvertiseAddress(request.advertiseAddress, listenPort)
    const identity: Identity = {
      nodeId: mintId(random),
      address: `${advertise.host}:${advertise.port}`,
      listenAddress,
    }
    const paths = dataPaths(options.dataRoot)
    await removeIdentity(options.dataRoot)
    await mkdir(paths.cluster, { recursive: true, mode: 0o700 })
    const keyring = await openKeyring({ path: paths.keys })
    const root = await createRootCa(clock.nowMs())
    const described = await describeRoot(root.certificatePem)
    const clusterId: ClusterId = mintId(random)
    const meta = {
      namespace: defaultNamespace,
      labels: request.cluster.labels,
      version: 0,
      specVersion: 0,
      createdAtMs: 0,
      updatedAtMs: 0,
    }
    const bare = {
      root: { ...described, key: keyring.seal(encode(root.keyPem), `${clusterId}/root`) },
      rootRotationInProgress: false,
      addressPools: request.addressPools.length > 0 ? request.addressPools : [addressPoolDefault],
      subnetSize: request.subnetSize || subnetSizeDefault,
      dataPathPort: request.dataPathPort || dataPathPortDefault,
    }
    const identityOfRoot = { id: clusterId, status: bare }
    const status: ClusterStatus = {
      ...bare,
      joinTokens: {
        worker: sealToken(keyring, identityOfRoot, 'worker'),
        manager: sealToken(keyring, identityOfRoot, 'manager'),
      },
      ...(request.cluster.spec.autoLock
        ? { unlockKey: keyring.seal(encode(createUnlockKey()), `${clusterId}/unlock`) }
        : {}),
    }
    const cluster: Cluster = {
      kind: 'cluster',
      id: clusterId,
      ...meta,
      name: 'default',
      source: request.cluster.source,
      spec: request.cluster.spec,
      status,
    }
    const node: ClusterNode = {
      kind: 'node',
      id: identity.nodeId,
      ...meta,
      labels: {},
      name: hostname(),
      source: { dialect: 'skep', document: {} },
      spec: { role: 'manager', availability: request.availability },
      description: {
        hostname: hostname(),
        platform: { architecture: '', os: 'linux' },
        resources: { nanoCpus: 0, memoryBytes: 0, generic: [] },
        engine: { version: '', apiVersion: '', labels: {}, plugins: [] },
        skepVersion: '',
        hostSubnets: [],
      },
      status: { state: 'unknown', message: 'starting', address: advertise.host },
      manager: { address: identity.address, leader: true, reachability: 'reachable' },
    }
    const store = await openSqliteStore({ path: paths.store, clock, log })
    try {
      await store.commit(
        [cluster, node, ...initialNetworks(random)].map((object) => ({
          type: 'create' as const,
          object,
        })),
      )
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

function sealToken(
  keyring: { seal(bytes: Uint8Array, aad: string): ClusterStatus['joinTokens']['worker'] },
  cluster: {
    readonly id: string
    readonly status: { readonly root: { readonly certificatePem: string } }
  },
  role: 'worker' | 'manager',
) {
  return keyring.seal(
    encode(createJoinToken(cluster.status.root.certificatePem)),
    `${cluster.id}/join/${role}`,
  )
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}
