import { execFileSync } from 'node:child_process'
import { after, before, describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { openRealClock, realRandom } from '../base/real-world.ts'
import { describeStoreContract } from '../store/contract.ts'
import { describeEtcdClientContract } from '../store/etcd/client-contract.ts'
import { openEtcdStore } from '../store/etcd/etcd-store.ts'
import { RealCluster } from './real-cluster.testing.ts'

const clock = openRealClock()

function isInstalled(): boolean {
  try {
    execFileSync('etcd', ['--version'])
    return true
  } catch {
    return false
  }
}

if (isInstalled()) {
  describeEtcdClientContract('the gateway of a real etcd', async () => {
    const cluster = await RealCluster.start(1)
    return { client: () => cluster.client(), stop: () => cluster.stop() }
  })
  describe('one real member', { concurrency: 1 }, () => {
    let cluster: RealCluster
    let places = 0
    before(async () => {
      cluster = await RealCluster.start(1)
    })
    after(() => cluster.stop())
    describeStoreContract(
      'the store on a real etcd',
      () => {
        const prefix = `/contract-${places++}/`
        const client = cluster.client()
        return {
          open: () => openEtcdStore({ client, clock, random: realRandom, log: silentLog, prefix }),
          remove: () => client.close(),
        }
      },
      { durable: true, histories: 15 },
    )
  })
} else {
  test('a real etcd', { skip: 'etcd is not installed: apt-get install etcd-server' }, () => {})
}
