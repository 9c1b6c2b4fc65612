import { after, before, describe, test } from 'node:test'
import { silentLog } from '../src/base/index.ts'
import { openRealClock, realRandom } from '../src/base/real-world.ts'
import { describeStoreContract } from '../src/store/contract.ts'
import { describeEtcdClientContract } from '../src/store/etcd/client-contract.ts'
import { openEtcdStore } from '../src/store/etcd/etcd-store.ts'
import { buildValueKey } from '../src/store/test-objects.ts'
import { sealedValues } from '../src/store/value-codec.ts'
import { etcdIsMissing, RealCluster } from './support/etcd-cluster.ts'

const clock = openRealClock()
const values = sealedValues([buildValueKey()])

if (etcdIsMissing === false) {
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
          open: () =>
            openEtcdStore({ client, values, clock, random: realRandom, log: silentLog, prefix }),
          remove: () => client.close(),
        }
      },
      { durable: true, histories: 15 },
    )
  })
} else {
  test('a real etcd', { skip: etcdIsMissing }, () => {})
}
