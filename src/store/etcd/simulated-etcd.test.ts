import { openRealClock, realRandom } from '../../base/real-world.ts'
import { describeEtcdClientContract } from './client-contract.ts'
import { SimulatedEtcd } from './simulated-etcd.ts'

describeEtcdClientContract('the simulated etcd', async () => {
  const etcd = new SimulatedEtcd({
    clock: openRealClock(),
    random: realRandom,
    members: 3,
    delayMsMax: 2,
  })
  return { client: () => etcd.client(), stop: async () => etcd.close() }
})
