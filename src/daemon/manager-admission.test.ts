import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { openRealClock, realRandom } from '../base/real-world.ts'
import { idFrom, type NodeId } from '../model/index.ts'
import { buildNode } from '../model/testing.ts'
import { SimulatedEtcd } from '../store/etcd/simulated-etcd.ts'
import { openMemoryStore } from '../store/index.ts'
import { ManagerAdmission } from './manager-admission.ts'

const here: NodeId = idFrom('n1')
const there: NodeId = idFrom('n2')

async function open() {
  const clock = openRealClock()
  const store = await openMemoryStore({ clock })
  for (const id of ['n1', 'n2']) await store.commit([{ type: 'create', object: buildNode({ id }) }])
  const etcd = new SimulatedEtcd({ clock, random: realRandom, members: 1 })
  const [own] = etcd.memberList()
  assert.ok(own)
  etcd.nameMember(own.memberId, here)
  etcd.memberUpdate(own.memberId, ['https://h1:2380'])
  const client = etcd.client()
  const share = async () => client
  const shared = () => client
  const admission = new ManagerAdmission({ store, share, shared, clock, log: silentLog })
  const names = () =>
    etcd.memberList().map(({ name, learner }) => `${name}${learner ? ', learning' : ''}`)
  const begins = (memberId: string, id: NodeId) => {
    etcd.nameMember(memberId, id)
    etcd.setMember(etcd.indexOf(memberId) ?? -1, 'up')
  }
  return { etcd, admission, names, begins }
}

describe('letting managers in', () => {
  test('one that had begun and lost what it had is let in anew, whether it counted or not', async () => {
    for (const hasCounted of [false, true]) {
      const { admission, names, begins } = await open()
      const first = await admission.add(there, 'h2:2377')
      begins(first.memberId, there)
      if (hasCounted) await admission.promote(there, first.memberId)
      const second = await admission.add(there, 'h2:2377')
      assert.notEqual(second.memberId, first.memberId)
      assert.deepEqual(second.members, [
        { name: 'n1', peerUrl: 'https://h1:2380' },
        { name: 'n2', peerUrl: 'https://h2:2380' },
      ])
      begins(second.memberId, there)
      await admission.promote(there, second.memberId)
      assert.deepEqual(names(), ['n1', 'n2'])
    }
  })

  test('so is one that may not have begun', async () => {
    const { admission, names } = await open()
    const first = await admission.add(there, 'h2:2377')
    assert.notEqual((await admission.add(there, 'h2:2377')).memberId, first.memberId)
    assert.deepEqual(names(), ['n1', ', learning'])
  })

  test('nobody takes the address of another manager', async () => {
    const { admission, names } = await open()
    await assert.rejects(admission.add(there, 'h1:2377'), {
      code: 'conflict',
      message: 'https://h1:2380 belongs to another manager already',
    })
    assert.deepEqual(names(), ['n1'])
  })
})
