import { openRealClock } from '../base/real-world.ts'
import { describeStoreContract } from './contract.ts'
import { openMemoryStore } from './index.ts'

const clock = openRealClock()

describeStoreContract(
  'the memory store',
  () => ({ open: () => openMemoryStore({ clock }), remove: async () => {} }),
  { durable: false, histories: 300 },
)
