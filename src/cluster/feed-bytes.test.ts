import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Clock, TurnBudget } from '../base/index.ts'
import { backendKey, type Fact, Feed, hashed } from '../dispatcher/feed.ts'
import { type EndpointId, idFrom, type TaskId } from '../model/index.ts'
import { buildTask } from '../model/testing.ts'
import type { AssignmentChange, FeedPart } from '../wire/index.ts'
import { decodePart, encodePart, encodeParts } from './feed-bytes.ts'

function partOf(count: number): FeedPart {
  return {
    endpoints: { put: [], remove: [idFrom('e0')] },
    backends: [
      {
        endpointId: idFrom('e1'),
        put: Array.from({ length: count }, (_, at) => ({
          taskId: idFrom<'task'>(`t${at}`),
          taskName: `wéb.${at}.t${at}`,
          nodeId: idFrom<'node'>('n1'),
          weight: 1,
          addresses: { x: `10.0.0.${at}` },
        })),
        remove: [],
      },
    ],
    neighbours: { put: [], remove: ['x/10.0.0.9'] },
  }
}

describe('parts of feeds as bytes', () => {
  test('come out as they went in, short ones and long ones', () => {
    for (const count of [0, 1, 200]) {
      const part = partOf(count)
      assert.deepEqual(decodePart(encodePart(part)), part)
    }
    assert.ok(encodePart(partOf(200)).length < JSON.stringify(partOf(200)).length / 4)
  })

  test('are made once', () => {
    const part = partOf(3)
    assert.equal(encodePart(part), encodePart(part))
  })

  test('that are none are refused', () => {
    const whole = encodePart(partOf(200))
    for (const bytes of [new Uint8Array(), whole.subarray(0, 50), Buffer.from('\0[]')])
      assert.throws(() => decodePart(bytes), { code: 'invalidInput' })
  })
})

/** A clock whose turns are taken by hand. */
class TurnClock implements Clock {
  #next: (() => void)[] = []

  nowMs(): number {
    return 0
  }

  sleep(): Promise<void> {
    return new Promise((resolve) => this.#next.push(resolve))
  }

  async turn(): Promise<void> {
    for (const go of this.#next.splice(0)) go()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const noDelta = { put: [], remove: [] }

function feedOf(backends: number): Feed {
  const feed = new Feed('published', 0)
  const endpointId: EndpointId = idFrom('e')
  const changes = Array.from({ length: backends }, (_, at) => {
    const taskId: TaskId = idFrom(`t${at}`)
    const backend = { taskId, taskName: `web.${at}`, nodeId: idFrom<'node'>('n'), weight: 1 }
    const fact: Fact = { type: 'backend', endpointId, backend: { ...backend, addresses: {} } }
    return [backendKey(endpointId, taskId), hashed(fact)] as const
  })
  feed.change(1, new Map(changes))
  return feed
}

function messageWith(feed: Feed, tasks: number): AssignmentChange {
  const task = buildTask()
  const put = Array.from({ length: tasks }, () => ({ task }))
  return {
    ...{ full: true, sequence: 1, secrets: noDelta, configs: noDelta, networks: noDelta },
    feeds: { put: [feed.since(undefined)], remove: [] },
    tasks: { put, remove: [] },
  } as unknown as AssignmentChange
}

test('many sessions that wait for the bytes of one part make their messages in shares, not all in one turn', async () => {
  const clock = new TurnClock()
  const turns = new TurnBudget(clock)
  const message = messageWith(feedOf(3), 49)
  turns.spend(turns.unitsPerTurn)
  let made = 0
  for (let session = 0; session < 100; session++)
    void encodeParts(message, turns).then(() => {
      made += 1
    })
  const madeByTurn: number[] = []
  for (let turn = 0; turn < 40 && made < 100; turn++) {
    const before = made
    await clock.turn()
    madeByTurn.push(made - before)
  }
  assert.equal(made, 100)
  assert.ok(Math.max(...madeByTurn) <= 10, `made in each turn: ${madeByTurn.join(' ')}`)
})

test('a part that many sessions wait for takes one share', async () => {
  const clock = new TurnClock()
  const turns = new TurnBudget(clock)
  const message = messageWith(feedOf(600), 0)
  turns.spend(turns.unitsPerTurn)
  const all = Promise.all(Array.from({ length: 50 }, () => encodeParts(message, turns)))
  await clock.turn()
  await clock.turn()
  await all
})

test('a message of which nothing had to be waited for goes on at once', async () => {
  const turns = new TurnBudget(new TurnClock())
  const message = messageWith(feedOf(3), 2)
  await encodeParts(message, turns)
  turns.spend(turns.unitsPerTurn)
  await encodeParts(message, turns)
})
