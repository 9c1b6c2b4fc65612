import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog, UserError } from '../base/index.ts'
import { idFrom } from '../model/index.ts'
import { buildNode } from '../model/testing.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import type { ManagerLink } from '../wire/index.ts'
import { heedRemoval } from './removed-node.ts'

const nodeId = idFrom<'node'>('n1')
const { description } = buildNode()
const { signal } = new AbortController()

function linkThatSays(...codes: readonly UserError['code'][]): ManagerLink {
  let at = 0
  return { open: () => Promise.reject(new UserError(codes[at++] ?? 'unavailable', 'no')) }
}

describe('a node that was removed', () => {
  test('is assigned nothing once the managers have said so three times, and asks again later', async () => {
    const clock = new VirtualClock()
    let removed = 0
    const link = heedRemoval(linkThatSays('notFound', 'notFound', 'notFound'), {
      ...{ clusterId: 'c1', clock, log: silentLog },
      removed: () => (removed += 1),
    })
    for (let time = 1; time < 3; time++) {
      await assert.rejects(link.open(nodeId, description, signal), { code: 'notFound' })
    }
    assert.equal(removed, 0)
    const session = await link.open(nodeId, description, signal)
    assert.equal(removed, 1)
    const change = await session.next(signal)
    assert.ok(change.full)
    assert.deepEqual([change.tasks.put, change.networks.put, change.secrets.put], [[], [], []])
    await session.report([])
    const over = assert.rejects(session.next(signal), { code: 'unavailable' })
    await clock.advance(60_000)
    await over
  })

  test('is not taken for removed by silence, or by a word that is taken back', async () => {
    const clock = new VirtualClock()
    const codes = ['notFound', 'notFound', 'unavailable', 'forbidden'] as const
    const link = heedRemoval(linkThatSays(...codes), {
      ...{ clusterId: 'c1', clock, log: silentLog },
      removed: () => assert.fail('it is no more than out of reach'),
    })
    for (const code of codes) {
      await assert.rejects(link.open(nodeId, description, signal), { code })
    }
  })
})
