import { silentLog } from '../../base/index.ts'
import { openRealClock, realRandom } from '../../base/real-world.ts'
import { describeStoreContract } from '../contract.ts'
import { buildValueKey } from '../test-objects.ts'
import { sealedValues } from '../value-codec.ts'
import { openEtcdStore } from './etcd-store.ts'
import { SimulatedEtcd } from './simulated-etcd.ts'

const clock = openRealClock()
const values = sealedValues([buildValueKey()])

describeStoreContract(
  'the store on a simulated etcd',
  () => {
    const etcd = new SimulatedEtcd({ clock, random: realRandom, members: 3 })
    return {
      open: () =>
        openEtcdStore({ client: etcd.client(), values, clock, random: realRandom, log: silentLog }),
      remove: async () => etcd.close(),
    }
  },
  { durable: true, histories: 100 },
)
