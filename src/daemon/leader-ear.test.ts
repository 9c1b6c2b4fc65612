import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom, type NodeId } from '../model/index.ts'
import { LeaderEar } from './leader-ear.ts'

const nodeId: NodeId = idFrom('former')
const address = '10.0.0.1:2377'

describe('what a manager knows of the leader before', () => {
  test('silence counts from the last word, not from when it was noticed', () => {
    const ear = new LeaderEar()
    ear.hear({ address, type: 'speaks' }, 1_000)
    assert.deepEqual(ear.predecessor(nodeId, address, 1_500), {
      nodeId,
      sinceMs: 500,
      end: 'silent',
    })
    ear.hear({ address, type: 'silent' }, 4_000)
    assert.deepEqual(ear.predecessor(nodeId, address, 4_500), {
      nodeId,
      sinceMs: 3_500,
      end: 'silent',
    })
  })

  test('an end counts from when it came', () => {
    const ear = new LeaderEar()
    ear.hear({ address, type: 'speaks' }, 1_000)
    ear.hear({ address, type: 'ended' }, 1_400)
    assert.deepEqual(ear.predecessor(nodeId, address, 1_500), {
      nodeId,
      sinceMs: 100,
      end: 'ended',
    })
  })

  test('nothing is known of one that it had no session with', () => {
    const ear = new LeaderEar()
    assert.equal(ear.predecessor(nodeId, address, 0), undefined)
    ear.hear({ address: '10.0.0.2:2377', type: 'ended' }, 0)
    assert.equal(ear.predecessor(nodeId, address, 0), undefined)
  })
})
