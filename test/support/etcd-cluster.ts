import { execFileSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Log, silentLog } from '../../src/base/index.ts'
import { openRealClock } from '../../src/base/real-world.ts'
import {
  type EtcdBegin,
  type EtcdProcess,
  type EtcdProcessOptions,
  startEtcd,
} from '../../src/etcd/etcd-process.ts'
import { addMember, promoteMember } from '../../src/etcd/members.ts'
import { idFrom } from '../../src/model/index.ts'
import {
  createNodeKey,
  createRootCa,
  issueNodeCertificate,
  type NodeCredentials,
  type RootCa,
} from '../../src/security/index.ts'
import { type EtcdClient, EtcdError } from '../../src/store/etcd/client.ts'
import { openGatewayClient } from '../../src/store/etcd/gateway-client.ts'

const clock = openRealClock()
const requiredName = 'swarm-manager'

export interface RealMember {
  readonly name: string
  readonly directory: string
  readonly peerUrl: string
  readonly options: EtcdProcessOptions
  process: EtcdProcess
}

/** A cluster of real etcd processes on loopback, with certificates of a root of its own, for tests. */
export class RealCluster {
  readonly directory: string
  readonly root: RootCa
  readonly members: RealMember[] = []
  readonly #log: Log
  readonly #clients: EtcdClient[] = []

  private constructor(directory: string, root: RootCa, log: Log) {
    this.directory = directory
    this.root = root
    this.#log = log
  }

  static async start(size: number, log: Log = silentLog): Promise<RealCluster> {
    const directory = await mkdtemp(join(tmpdir(), 'skep-etcd-test-'))
    const cluster = new RealCluster(directory, await createRootCa(clock.nowMs()), log)
    try {
      for (let i = 0; i < size; i++) await cluster.#add(i)
    } catch (error) {
      await cluster.stop()
      throw error
    }
    return cluster
  }

  async #add(index: number): Promise<void> {
    const name = `m${index}`
    const peerUrl = `https://127.0.0.1:${await freePort()}`
    if (index === 0) {
      await this.#startMember(name, peerUrl, { type: 'new', token: 'test' })
      await this.client().range({ key: 'any' }, { deadlineMs: 120_000 })
      return
    }
    const client = this.client()
    const { memberId, members } = await addMember({ client, name, peerUrl, clock })
    await this.#startMember(name, peerUrl, { type: 'join', token: 'test', members })
    await promoteMember({ client, memberId, clock })
  }

  async #startMember(name: string, peerUrl: string, begin: EtcdBegin): Promise<void> {
    const { certificatePem, keyPem } = await this.credentials(name, 'manager')
    const files = join(this.directory, `${name}-files`)
    await mkdir(files, { mode: 0o700 })
    const paths = {
      certificatePath: join(files, 'certificate.pem'),
      keyPath: join(files, 'key.pem'),
      rootsPath: join(files, 'roots.pem'),
      requiredName,
    }
    await writeFile(paths.certificatePath, certificatePem)
    await writeFile(paths.keyPath, keyPem, { mode: 0o600 })
    await writeFile(paths.rootsPath, this.root.certificatePem)
    const directory = join(this.directory, name)
    const options: EtcdProcessOptions = {
      directory,
      name,
      peerListenUrl: peerUrl,
      peerUrl,
      files: paths,
      begin,
      clock,
      log: this.#log,
    }
    const process = await startEtcd(options)
    this.members.push({ name, directory, peerUrl, options, process })
  }

  async credentials(name: string, role: 'manager' | 'worker'): Promise<NodeCredentials> {
    const { keyPem, publicKeyPem } = createNodeKey()
    const certificatePem = await issueNodeCertificate({
      root: this.root,
      nodeId: idFrom(name),
      role,
      clusterId: idFrom('test'),
      key: { publicKeyPem },
      addresses: ['127.0.0.1'],
      expiryMs: 3_600_000,
      nowMs: clock.nowMs(),
    })
    return { certificatePem, keyPem }
  }

  /** A client whose first choice is one member, or that knows that one alone. Closed with the cluster. */
  client(first = 0, { alone = false } = {}): EtcdClient {
    const urls = this.members.map((member) => member.process.endpoint)
    const [url = ''] = urls.splice(first, 1)
    const client = openGatewayClient({
      endpoints: alone ? [url] : [url, ...urls],
      clock,
      log: this.#log,
    })
    this.#clients.push(client)
    return client
  }

  /** Starts a member that was stopped. */
  async restart(index: number, begin: EtcdBegin, binary = 'etcd'): Promise<void> {
    const member = this.members[index]
    if (!member) throw new Error(`there is no member ${index}`)
    member.process = await startEtcd({ ...member.options, begin, binary })
  }

  /** Index of the member that leads, as soon as one does. */
  async leader(): Promise<number> {
    for (;;) {
      for (const [index, member] of this.members.entries()) {
        try {
          const status = await this.client(index).status({ endpoint: member.process.endpoint })
          if (status.memberId === status.leaderId) return index
        } catch (error) {
          // It is being started again.
          if (!(error instanceof EtcdError)) throw error
        }
      }
      await clock.sleep(100)
    }
  }

  signal(index: number, signal: NodeJS.Signals): void {
    const pid = this.members[index]?.process.pid
    if (pid !== undefined) process.kill(pid, signal)
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) await client.close()
    await Promise.all(this.members.map((member) => member.process.stop()))
    await rm(this.directory, { recursive: true, force: true })
  }
}

/** Why tests that need etcd are skipped; false where they are not. */
export const etcdIsMissing: string | false = (() => {
  try {
    execFileSync('etcd', ['--version'])
    return false
  } catch {
    return 'etcd is not installed: apt-get install etcd-server'
  }
})()

/**
 * A port that nobody listens on. It lies below those that the kernel gives to connections, and those that clusters give to
 * services, so that nobody is given it while no member listens.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 30_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}
