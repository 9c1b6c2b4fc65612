import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { openRealClock, realRandom } from '../base/real-world.ts'
import { parseDaemonFlags } from '../cli/daemon-flags.ts'
import { Authority, foundCluster } from '../cluster/index.ts'
import { idFrom, type NodeId } from '../model/index.ts'
import { buildClusterSpec } from '../model/testing.ts'
import { createNodeKey, type Keyring, openKeyring } from '../security/index.ts'
import { SimulatedEtcd } from '../store/etcd/simulated-etcd.ts'
import { openMemoryStore, type Store } from '../store/index.ts'
import { type Identity, readIdentity } from './identity.ts'
import { NodeCertificates } from './node-certificates.ts'
import { settleAddress } from './settle-address.ts'

const clock = openRealClock()
const nodeId: NodeId = idFrom('member-0')
const otherId: NodeId = idFrom('member-1')

/** A cluster of two managers, as the first one finds it at its start. */
describe('a manager with another address', () => {
  let dataRoot = ''
  let store: Store
  let keyring: Keyring
  let certificates: NodeCertificates
  let changedFiles = 0
  const etcd = new SimulatedEtcd({ clock, random: realRandom, members: 2 })
  const client = etcd.client()

  before(async () => {
    dataRoot = await mkdtemp(join(tmpdir(), 'skep-address-'))
    keyring = await openKeyring({ path: join(dataRoot, 'data.keys') })
    store = await openMemoryStore({ clock })
    const cluster = {
      source: { dialect: 'docker', document: {} },
      spec: buildClusterSpec(),
    } as const
    const objects = await foundCluster(
      {
        cluster: { ...cluster, labels: {} },
        ...{ addressPools: [], subnetSize: 0, dataPathPort: 0, availability: 'active' },
      },
      { nodeId, hostname: 'm0', host: '10.0.0.1', address: '10.0.0.1:2377' },
      { keyring, random: realRandom, nowMs: clock.nowMs() },
    )
    const own = objects.find((object) => object.kind === 'node')
    assert(own)
    const manager = { address: '10.0.0.2:2377', leader: false, reachability: 'reachable' } as const
    const other = { ...own, id: otherId, name: 'm1', manager }
    await store.commit([...objects, other].map((object) => ({ type: 'create', object })))
    const authority = new Authority({
      ...{ store, keyring, clock, random: realRandom },
      managersRefused: () => undefined,
    })
    const { keyPem, publicKeyPem } = createNodeKey()
    const admission = await authority.renewOwn(nodeId, publicKeyPem)
    certificates = await NodeCertificates.make(dataRoot, keyPem, admission)
    for (const [at, { memberId }] of (await client.memberList()).entries())
      await client.memberUpdate(memberId, [`https://10.0.0.${at + 1}:2380`])
  })
  after(async () => {
    await store.close()
    await client.close()
    etcd.close()
    await rm(dataRoot, { recursive: true, force: true })
  })

  async function settle(address: string): Promise<Identity> {
    const identity: Identity = { nodeId, address, listenAddress: '0.0.0.0:2377', store: 'etcd' }
    const certificatesChanged = async (): Promise<void> => {
      changedFiles += 1
    }
    const options = parseDaemonFlags({ dataRoot })
    const world = { options, clock, random: realRandom, log: silentLog }
    const shared = { client, certificatesChanged }
    await settleAddress({ world, identity, store, keyring, certificates, etcd: shared })
    return identity
  }
  const peerUrls = async () => (await client.memberList()).map(({ peerUrls: [url] }) => url)

  test('is known by it in the state, in its certificate, to etcd and on its disk; and then nothing is changed', async () => {
    const identity = await settle('10.0.0.7:2377')
    const node = store.view.get('node', nodeId)
    assert.equal(node?.manager?.address, '10.0.0.7:2377')
    assert.equal(node.status.address, '10.0.0.7')
    assert.notEqual(new X509Certificate(certificates.certificatePem).checkIP('10.0.0.7'), undefined)
    assert.deepEqual(await peerUrls(), ['https://10.0.0.7:2380', 'https://10.0.0.2:2380'])
    assert.ok(changedFiles > 0)
    assert.equal((await readIdentity(dataRoot))?.address, identity.address)
    const { revision } = store.view
    await settle('10.0.0.7:2377')
    assert.equal(store.view.revision, revision)
  })

  test('is refused that of another manager, and keeps its own', async () => {
    await assert.rejects(settle('10.0.0.2:2377'), {
      code: 'conflict',
      message: '10.0.0.2:2377 belongs to another manager, m1',
    })
    assert.equal(store.view.get('node', nodeId)?.manager?.address, '10.0.0.7:2377')
    assert.equal((await readIdentity(dataRoot))?.address, '10.0.0.7:2377')
  })
})
