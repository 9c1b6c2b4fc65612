import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { type Clock, type Random, UserError } from '../base/index.ts'
import { clusterOf } from '../control/index.ts'
import {
  type Cluster,
  type ClusterNode,
  type ClusterStatus,
  defaultNamespace,
  type IssuedToken,
  mintId,
  type NodeCertificateStatus,
  type NodeId,
  type NodeRole,
} from '../model/index.ts'
import {
  isSameSecret,
  issueNodeCertificate,
  isTokenForRoot,
  type Keyring,
  parseJoinToken,
  parseNodeCertificate,
  publicKeyHashOf,
  type RootCa,
  rootHashOf,
  tokenHashOf,
} from '../security/index.ts'
import { type Change, nextCommit, type Store, type View } from '../store/index.ts'
import type { Admission, AdmissionRequest, ManagerAddress } from './messages.ts'

export interface AuthorityOptions {
  readonly store: Store
  readonly keyring: Keyring
  readonly clock: Clock
  readonly random: Random
  /** Why no manager can join now, or undefined. */
  readonly managersRefused: () => UserError | undefined
}

/** After this a join of a manager has ended one way or the other, in ms: it waits 70 s for an answer at most. */
const joinMsMax = 90_000
/** Times a commit is tried again when someone else changed the same objects first. */
const retriesMax = 20

/** Lets nodes in, and gives them their certificates. */
export class Authority {
  readonly #options: AuthorityOptions

  constructor(options: AuthorityOptions) {
    this.#options = options
  }

  /**
   * Takes a host into the cluster: token, node object, certificate. The same key again is the same node, so that a
   * host whose answer got lost can ask again. Rejects with a sentence for each way a token can be no good.
   */
  async admit(request: AdmissionRequest, seenAddress: string): Promise<Admission> {
    const { store, clock, random } = this.#options
    const address = request.advertiseAddress || seenAddress
    for (let attempt = 0; ; attempt++) {
      const cluster = clusterOf(store.view)
      const pass = this.#checkToken(cluster, request.token)
      if (pass.role === 'manager') {
        const refusal = this.#options.managersRefused()
        if (refusal) throw refusal
      }
      // The key of a request is known only once it has been signed.
      const nodeId: NodeId = mintId(random)
      const made = await this.#issue(cluster, nodeId, pass.role, address, {
        csrPem: request.csrPem,
      })
      const before = nodeByKey(store, made.certificate.publicKeyHash)
      if (before) {
        const known = before.status.address
        const again = await this.#issue(cluster, before.id, before.spec.role, known, {
          csrPem: request.csrPem,
        })
        return this.#admission(before.id, again.certificatePem, known)
      }
      const node = newNode(nodeId, pass, request, address, made.certificate)
      const changes: Change[] = [
        ...leftovers(store.view, node, clock.nowMs()).map(
          ({ id, version }): Change => ({ type: 'delete', kind: 'node', id, version }),
        ),
        { type: 'create', object: node },
      ]
      if (pass.issued?.usesLeft !== undefined) {
        const status = countUse(cluster.status, pass.issued)
        changes.push({ type: 'update', object: { ...cluster, status } })
      }
      try {
        await store.commit(changes)
        return this.#admission(nodeId, made.certificatePem, address)
      } catch (error) {
        if (!isRace(error) || attempt >= retriesMax) throw error
        await nextCommit(store, clock)
      }
    }
  }

  /** A new certificate for a node that has proved its key. */
  async renew(nodeId: NodeId, csrPem: string): Promise<Admission> {
    return this.#renew(nodeId, { csrPem })
  }

  /** As `renew`, for a manager's own node. The key is recorded if none was. */
  async renewOwn(nodeId: NodeId, publicKeyPem: string): Promise<Admission> {
    return this.#renew(nodeId, { publicKeyPem })
  }

  async #renew(
    nodeId: NodeId,
    key: { readonly csrPem: string } | { readonly publicKeyPem: string },
  ): Promise<Admission> {
    const { store, clock } = this.#options
    for (let attempt = 0; ; attempt++) {
      const cluster = clusterOf(store.view)
      const node = store.view.get('node', nodeId)
      if (!node) throw new UserError('notFound', `node ${nodeId} is not part of this cluster`)
      const { certificatePem, certificate } = await this.#issue(
        cluster,
        nodeId,
        node.spec.role,
        node.status.address,
        key,
      )
      const known = node.certificate?.publicKeyHash
      if (known !== undefined && known !== certificate.publicKeyHash && 'csrPem' in key) {
        throw new UserError('forbidden', `node ${nodeId} asks for a certificate for another key`, {
          next: 'A node keeps its key. Let it leave and join again.',
        })
      }
      try {
        await store.commit([{ type: 'update', object: { ...node, certificate } }])
        return this.#admission(nodeId, certificatePem, node.status.address)
      } catch (error) {
        if (!isRace(error) || attempt >= retriesMax) throw error
        await nextCommit(store, clock)
      }
    }
  }

  /** Roots that are trusted now, the one that signs first. */
  rootsPem(): readonly string[] {
    return rootsOf(clusterOf(this.#options.store.view))
  }

  /** The cluster's data keys as their file holds them, in plain: for managers alone. */
  dataKeys(): string {
    return this.#options.keyring.exportKeys()
  }

  /** The root and its key, for as long as it takes to sign. */
  rootCa(cluster: Cluster): RootCa {
    const { keyring } = this.#options
    const key = keyring.unseal(cluster.status.root.key, `${cluster.id}/root`)
    return {
      certificatePem: cluster.status.root.certificatePem,
      keyPem: new TextDecoder().decode(key),
    }
  }

  async #issue(
    cluster: Cluster,
    nodeId: NodeId,
    role: NodeRole,
    address: string,
    key: { readonly csrPem: string } | { readonly publicKeyPem: string },
  ): Promise<{ readonly certificatePem: string; readonly certificate: NodeCertificateStatus }> {
    const certificatePem = await issueNodeCertificate({
      root: this.rootCa(cluster),
      nodeId,
      role,
      clusterId: cluster.id,
      key,
      // Managers check each other by their addresses.
      ...(role === 'manager' && isIP(address) > 0 ? { addresses: [address] } : {}),
      expiryMs: cluster.spec.nodeCertExpiryMs,
      nowMs: this.#options.clock.nowMs(),
    })
    return {
      certificatePem,
      certificate: {
        publicKeyHash: publicKeyHashOf(new X509Certificate(certificatePem)),
        rootHash: rootHashOf(cluster.status.root.certificatePem),
        expiresAtMs: parseNodeCertificate(certificatePem).expiresAtMs,
      },
    }
  }

  #admission(nodeId: NodeId, certificatePem: string, nodeAddress: string): Admission {
    const { view } = this.#options.store
    const cluster = clusterOf(view)
    return {
      nodeId,
      clusterId: cluster.id,
      certificatePem,
      rootsPem: rootsOf(cluster),
      managers: managersOf(view.list('node')),
      nodeAddress,
    }
  }

  #checkToken(cluster: Cluster, text: string): Pass {
    const { clock, keyring } = this.#options
    const token = parseJoinToken(text)
    const open = (sealed: IssuedToken['sealed'], aad: string): string =>
      new TextDecoder().decode(keyring.unseal(sealed, aad))
    const { joinTokens, issuedTokens = [], rotatedTokens = [], root } = cluster.status
    for (const role of ['worker', 'manager'] as const) {
      if (isSameSecret(open(joinTokens[role], `${cluster.id}/join/${role}`), text.trim())) {
        return { role, labels: {} }
      }
    }
    for (const issued of issuedTokens) {
      if (!isSameSecret(open(issued.sealed, `${cluster.id}/token/${issued.id}`), text.trim()))
        continue
      if (issued.expiresAtMs !== undefined && clock.nowMs() >= issued.expiresAtMs) {
        throw badToken(
          `this join token (${issued.id}) expired at ${new Date(issued.expiresAtMs).toISOString()}`,
        )
      }
      if (issued.usesLeft !== undefined && issued.usesLeft <= 0) {
        throw badToken(`this join token (${issued.id}) is used up`)
      }
      return { role: issued.role, labels: issued.labels, issued }
    }
    const hash = tokenHashOf(text)
    const rotated = rotatedTokens.find((old) => old.hash === hash)
    if (rotated) {
      throw badToken(
        `this join token for ${rotated.role}s was rotated at ${new Date(rotated.atMs).toISOString()} and is no longer taken`,
      )
    }
    if (!isTokenForRoot(token, root.certificatePem)) {
      throw badToken(
        'this join token is for another root certificate: of another cluster, or of this one before its root was rotated',
      )
    }
    throw badToken('this join token is wrong: the cluster knows no such secret')
  }
}

interface Pass {
  readonly role: NodeRole
  readonly labels: Readonly<Record<string, string>>
  readonly issued?: IssuedToken
}

function badToken(message: string): UserError {
  return new UserError('forbidden', message, {
    next: 'Get one with `docker swarm join-token worker`, or `skep token create`, on a manager.',
  })
}

function countUse(status: ClusterStatus, used: IssuedToken | undefined): ClusterStatus {
  const { issuedTokens } = status
  if (!used || used.usesLeft === undefined || !issuedTokens) return status
  return {
    ...status,
    issuedTokens: issuedTokens.map((token) =>
      token.id === used.id ? { ...token, usesLeft: (token.usesLeft ?? 0) - 1 } : token,
    ),
  }
}

function newNode(
  id: NodeId,
  { role, labels }: Pass,
  request: AdmissionRequest,
  address: string,
  certificate: NodeCertificateStatus,
): ClusterNode {
  return {
    kind: 'node',
    id,
    namespace: defaultNamespace,
    labels,
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
    name: request.hostname,
    source: { dialect: 'skep', document: {} },
    spec: { role, availability: request.availability },
    description: {
      hostname: request.hostname,
      platform: { architecture: '', os: 'linux' },
      resources: { nanoCpus: 0, memoryBytes: 0, generic: [] },
      engine: { version: '', apiVersion: '', labels: {}, plugins: [] },
      skepVersion: '',
      hostSubnets: [],
    },
    status: { state: 'unknown', message: 'joining', address },
    certificate,
  }
}

function nodeByKey(store: Store, publicKeyHash: string): ClusterNode | undefined {
  for (const node of store.view.list('node')) {
    if (node.certificate?.publicKeyHash === publicKeyHash) return node
  }
  return undefined
}

/** Roots that a node is to trust, the one that signs first. */
export function rootsOf({ status }: Cluster): readonly string[] {
  return [status.root.certificatePem, ...(status.retiringRoots ?? [])]
}

/** Managers by their cluster port, the leader first. */
export function managersOf(nodes: Iterable<ClusterNode>): readonly ManagerAddress[] {
  const managers: ManagerAddress[] = []
  for (const { id, manager } of nodes) {
    if (!manager) continue
    const entry = { nodeId: id, address: manager.address }
    if (manager.leader) managers.unshift(entry)
    else managers.push(entry)
  }
  return managers
}

function isRace(error: unknown): boolean {
  return error instanceof UserError && (error.code === 'outOfSequence' || error.code === 'notFound')
}

/** Whether a manager was let in and never took up its part. */
export function isHalfJoined(view: View, { id, spec, manager, status }: ClusterNode): boolean {
  const neverCame = manager === undefined || manager.joining === true
  const isManager = spec.role === 'manager' && neverCame
  return isManager && status.state !== 'ready' && view.tasksOfNode(id).length === 0
}

/** What a join of the same host left that ended half-way: the next one takes its place. */
function leftovers(
  view: View,
  { name, status }: ClusterNode,
  nowMs: number,
): readonly ClusterNode[] {
  return [...view.list('node')].filter(
    (old) =>
      old.name === name &&
      old.status.address === status.address &&
      nowMs - old.createdAtMs >= joinMsMax &&
      isHalfJoined(view, old),
  )
}
