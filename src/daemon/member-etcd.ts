import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type EtcdBegin, type EtcdProcess, startEtcd, waitForEtcd } from '../etcd/index.ts'
import { serverNames, writePrivateFile } from '../security/index.ts'
import { type EtcdClient, openGatewayClient } from '../store/etcd/index.ts'
import type { MemberWorld } from './host.ts'
import { chooseListenAddress } from './host-facts.ts'
import { dataPaths, type Identity } from './identity.ts'
import type { NodeCertificates } from './node-certificates.ts'
import { peerAddressOf, peerUrlOf } from './peer-url.ts'

/** This manager's etcd: a child process, the files it proves itself with, and the one client it has. */
export class MemberEtcd {
  readonly client: EtcdClient
  #process: EtcdProcess
  readonly #world: MemberWorld
  readonly #identity: Identity
  readonly #certificates: NodeCertificates
  readonly #removed: { tell: () => void }
  #rootsPem: string
  #isClosed = false

  private constructor(
    world: MemberWorld,
    identity: Identity,
    certificates: NodeCertificates,
    process: EtcdProcess,
    removed: { tell: () => void },
  ) {
    const { clock, log } = world
    this.#world = world
    this.#identity = identity
    this.#certificates = certificates
    this.#process = process
    this.#removed = removed
    this.#rootsPem = rootsOf(certificates)
    this.client = openGatewayClient({ endpoints: [process.endpoint], clock, log })
  }

  static async start(
    world: MemberWorld,
    identity: Identity,
    certificates: NodeCertificates,
    begin: EtcdBegin,
  ): Promise<MemberEtcd> {
    const removed = { tell: () => {} }
    await writeFiles(world, certificates)
    const process = await begun(world, identity, begin, () => removed.tell())
    return new MemberEtcd(world, identity, certificates, process, removed)
  }

  /** Calls back when the others have removed this one. */
  onRemoved(tell: () => void): void {
    this.#removed.tell = tell
  }

  /** Rejects with `unavailable` when it does not answer in time. */
  async untilAnswers(waitMs?: number): Promise<void> {
    const { clock } = this.#world
    const waiting = { process: this.#process, client: this.client, clock }
    await waitForEtcd({ ...waiting, ...(waitMs === undefined ? {} : { waitMs }) })
  }

  /** The certificate is another one. etcd reads it anew for each connection. */
  async certificatesChanged(): Promise<void> {
    await writeFiles(this.#world, this.#certificates)
  }

  /** Whether it trusts other roots than this node does by now: it learns them at its start alone. */
  get hasOldRoots(): boolean {
    return rootsOf(this.#certificates) !== this.#rootsPem
  }

  /** Starts it anew, which takes about a second; the client waits for it. */
  async restart(): Promise<void> {
    if (this.#isClosed) return
    this.#rootsPem = rootsOf(this.#certificates)
    await this.#process.stop()
    if (this.#isClosed) return
    const begin = { type: 'restart' } as const
    this.#process = await begun(this.#world, this.#identity, begin, () => this.#removed.tell())
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.client.close()
    await this.#process.stop()
    await rm(folderOf(this.#world), { recursive: true, force: true })
  }
}

function begun(
  world: MemberWorld,
  identity: Identity,
  begin: EtcdBegin,
  onRemoved: () => void,
): Promise<EtcdProcess> {
  const { options, clock, log } = world
  // It may be an interface, whose address is another one today.
  const { host, port } = chooseListenAddress(identity.listenAddress)
  return startEtcd({
    directory: dataPaths(options.dataRoot).etcd,
    name: identity.nodeId,
    peerListenUrl: `https://${peerAddressOf(`${host}:${port}`)}`,
    peerUrl: peerUrlOf(identity.address),
    files: filesOf(world),
    begin,
    clock,
    log,
    onRemoved,
  })
}

/** In the run directory, which is memory: the key must not lie on the disk of a locked swarm. */
function folderOf({ options }: MemberWorld): string {
  return join(options.runDir, 'etcd')
}

function filesOf(world: MemberWorld) {
  const folder = folderOf(world)
  return {
    certificatePath: join(folder, 'certificate.pem'),
    keyPath: join(folder, 'key.pem'),
    rootsPath: join(folder, 'roots.pem'),
    requiredName: serverNames.manager,
  }
}

async function writeFiles(world: MemberWorld, certificates: NodeCertificates): Promise<void> {
  const files = filesOf(world)
  await mkdir(folderOf(world), { recursive: true, mode: 0o700 })
  const { certificatePem, chainPem, keyPem } = certificates.credentials()
  await writePrivateFile(files.rootsPath, rootsOf(certificates))
  await writePrivateFile(files.keyPath, keyPem)
  await writePrivateFile(files.certificatePath, [certificatePem, ...chainPem].join(''))
}

function rootsOf(certificates: NodeCertificates): string {
  return certificates.credentials().rootsPem.join('')
}
