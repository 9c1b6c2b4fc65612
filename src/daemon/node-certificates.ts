import { X509Certificate } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../base/index.ts'
import type { Admission, TransportCredentials } from '../cluster/index.ts'
import { type ClusterId, idFrom, type NodeDescription, type Sealed } from '../model/index.ts'
import {
  describeRoot,
  formatNodeCredentials,
  type Keyring,
  type NodeCertificate,
  type NodeCredentials,
  parseNodeCertificate,
  parseNodeCredentials,
  readNodeCredentials,
  readPrivateFile,
  writeNodeCredentials,
  writePrivateFile,
} from '../security/index.ts'
import { dataPaths } from './identity.ts'

/** What a node knows of its cluster beside its own key: kept in one file. */
interface Trust {
  readonly clusterId: ClusterId
  /** PEM, the one that signs first. */
  readonly rootsPem: readonly string[]
  readonly chainPem: readonly string[]
  /** `host:port` of cluster ports, the leader's first. */
  readonly managers: readonly string[]
  /** Of the root that signed this node's certificate, as `docker node inspect` shows it. */
  readonly tls: NonNullable<NodeDescription['tls']>
}

/** This node's certificate, its key, and whom it trusts: on disk (0600), and as the transport wants them. */
export class NodeCertificates {
  readonly #folder: string
  #certificatePem: string
  readonly #keyPem: string
  #trust: Trust
  /** What seals the key on the disk; without it lies there as it is. */
  #sealer: Sealer | undefined
  /** One write of the files at a time. */
  #writing: Promise<unknown> = Promise.resolve()

  private constructor(
    folder: string,
    { certificatePem, keyPem }: NodeCredentials,
    trust: Trust,
    sealer?: Sealer,
  ) {
    this.#folder = folder
    this.#certificatePem = certificatePem
    this.#keyPem = keyPem
    this.#trust = trust
    this.#sealer = sealer
  }

  /** Undefined where this node has none yet. Throws `internal` when they are damaged, or sealed and no `sealer` is given. */
  static async open(dataRoot: string, sealer?: Sealer): Promise<NodeCertificates | undefined> {
    const folder = dataPaths(dataRoot).certificates
    const plain = await readNodeCredentials(join(folder, nodeFile))
    const credentials = plain ?? (await readSealed(folder, sealer))
    const text = await readPrivateFile(join(folder, trustFile))
    if (!credentials || text === undefined) return undefined
    return new NodeCertificates(
      folder,
      credentials,
      parseTrust(folder, text),
      plain ? undefined : sealer,
    )
  }

  /** The cluster that this node is part of, also while its key is sealed. */
  static async clusterIdOf(dataRoot: string): Promise<ClusterId | undefined> {
    const folder = dataPaths(dataRoot).certificates
    const text = await readPrivateFile(join(folder, trustFile))
    return text === undefined ? undefined : parseTrust(folder, text).clusterId
  }

  /** Keeps what a manager gave this node when it let it in. */
  static async make(
    dataRoot: string,
    keyPem: string,
    admission: Admission,
    chainPem: readonly string[] = [],
  ): Promise<NodeCertificates> {
    const folder = dataPaths(dataRoot).certificates
    const trust = await trustOf(admission, chainPem)
    const { certificatePem } = admission
    const made = new NodeCertificates(folder, { certificatePem, keyPem }, trust)
    await made.#write(admission.certificatePem, trust)
    return made
  }

  get keyPem(): string {
    return this.#keyPem
  }

  get certificatePem(): string {
    return this.#certificatePem
  }

  get certificate(): NodeCertificate {
    return parseNodeCertificate(this.#certificatePem)
  }

  get clusterId(): ClusterId {
    return this.#trust.clusterId
  }

  get managers(): readonly string[] {
    return this.#trust.managers
  }

  get tls(): NonNullable<NodeDescription['tls']> {
    return this.#trust.tls
  }

  credentials(): TransportCredentials {
    const { clusterId, rootsPem, chainPem } = this.#trust
    return {
      clusterId,
      rootsPem,
      chainPem,
      certificatePem: this.#certificatePem,
      keyPem: this.#keyPem,
    }
  }

  /** Whether `rootPem` signed the certificate. */
  isSignedBy(rootPem: string): boolean {
    return new X509Certificate(this.#certificatePem).verify(new X509Certificate(rootPem).publicKey)
  }

  /** A renewed certificate, durable before it is used. */
  async renew(admission: Admission, chainPem: readonly string[] = []): Promise<void> {
    const trust = await trustOf(admission, chainPem)
    await this.#write(admission.certificatePem, trust)
    this.#certificatePem = admission.certificatePem
    this.#trust = trust
  }

  /** What a manager says of roots and managers now. Resolves with whether anything was news. */
  async learn(news: {
    readonly rootsPem: readonly string[]
    readonly managers: readonly string[]
    readonly chainPem?: readonly string[]
  }): Promise<boolean> {
    const trust = { ...this.#trust, ...news }
    if (JSON.stringify(trust) === JSON.stringify(this.#trust)) return false
    this.#trust = trust
    await this.#write(this.#certificatePem, trust)
    return true
  }

  /**
   * From now on the node's key lies on the disk only as the sealer seals it; `undefined`: as it is. Resolves once that is
   * durable. Nothing is written when it is so already.
   */
  async sealWith(sealer: Sealer | undefined): Promise<void> {
    await this.#inTurn(async () => {
      const before = this.#sealer
      if ((sealer === undefined) === (before === undefined)) return
      this.#sealer = sealer
      try {
        await this.#writeNow(this.#certificatePem, this.#trust)
      } catch (error) {
        this.#sealer = before
        throw error
      }
    })
  }

  #write(certificatePem: string, trust: Trust): Promise<void> {
    return this.#inTurn(() => this.#writeNow(certificatePem, trust))
  }

  async #writeNow(certificatePem: string, trust: Trust): Promise<void> {
    // Trust first: a new certificate is of no use to a node that does not trust its managers.
    await writePrivateFile(join(this.#folder, trustFile), `${JSON.stringify(trust)}\n`)
    const credentials = { certificatePem, keyPem: this.#keyPem }
    const plainPath = join(this.#folder, nodeFile)
    const sealedPath = join(this.#folder, sealedFile)
    if (this.#sealer) {
      const text = formatNodeCredentials(sealedPath, credentials)
      const sealed = this.#sealer.seal(new TextEncoder().encode(text), sealedName)
      await writePrivateFile(sealedPath, `${JSON.stringify(sealed)}\n`)
      await rm(plainPath, { force: true })
    } else {
      await writeNodeCredentials(plainPath, credentials)
      await rm(sealedPath, { force: true })
    }
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#writing.then(work, work)
    this.#writing = turn.catch(() => {})
    return turn
  }
}

type Sealer = Pick<Keyring, 'seal' | 'unseal'>

const nodeFile = 'node.pem'
/** In its stead while the swarm is locked. */
const sealedFile = 'node.sealed'
const sealedName = 'node credentials'

async function readSealed(
  folder: string,
  sealer: Sealer | undefined,
): Promise<NodeCredentials | undefined> {
  const path = join(folder, sealedFile)
  const text = await readPrivateFile(path)
  if (text === undefined) return undefined
  if (!sealer) {
    throw new UserError('internal', `${path} is sealed with keys that this node does not have`, {
      next: 'Let this node leave (`docker swarm leave --force`) and join again.',
    })
  }
  const sealed = JSON.parse(text) as Sealed
  return parseNodeCredentials(path, new TextDecoder().decode(sealer.unseal(sealed, sealedName)))
}

const trustFile = 'cluster.json'

async function trustOf(
  { clusterId, rootsPem, managers }: Admission,
  chainPem: readonly string[],
): Promise<Trust> {
  const [signer = ''] = rootsPem
  const { issuerSubject, issuerPublicKey } = await describeRoot(signer)
  return {
    clusterId,
    rootsPem,
    chainPem,
    managers: managers.map(({ address }) => address),
    tls: { trustRoot: signer, issuerSubject, issuerPublicKey },
  }
}

function parseTrust(folder: string, text: string): Trust {
  try {
    const json: unknown = JSON.parse(text)
    if (typeof json !== 'object' || json === null) throw new Error('no object')
    const trust = json as Trust
    const isWhole =
      typeof trust.clusterId === 'string' &&
      trust.rootsPem.length > 0 &&
      trust.managers.every((address) => typeof address === 'string') &&
      trust.chainPem.every((pem) => typeof pem === 'string') &&
      typeof trust.tls.trustRoot === 'string'
    if (!isWhole) throw new Error('parts are missing')
    return { ...trust, clusterId: idFrom(trust.clusterId) }
  } catch (cause) {
    throw new UserError('internal', `${join(folder, trustFile)} is damaged`, {
      next: 'Restore it from a backup, or let this node leave (`docker swarm leave --force`) and join again.',
      cause,
    })
  }
}
