import { silentLog } from '../../base/index.ts'
import { openRealClock, realRandom } from '../../base/real-world.ts'
import { describeStoreContract } from '../contract.ts'
import { openEtcdStore } from './etcd-store.ts'
import { SimulatedEtcd } from './simulated-etcd.ts'

const clock = openRealClock()

describeStoreContract(
  'the store on a simulated etcd',
  () => {
    const etcd = new SimulatedEtcd({ clock, random: realRandom, members: 3 })
    return {
      open: () =>
        openEtcdStore({ client: etcd.client(), clock, random: realRandom, log: silentLog }),
      remove: async () => etcd.close(),
    }
  },
  { durable: true, histories: 100 },
)
