import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { idFrom, type NodeId } from '../model/index.ts'
import {
  allowedMs,
  beginWatch,
  decideLiveness,
  livenessLimits,
  lookAgain,
  type Predecessor,
  type WatchedNode,
} from './liveness.ts'

const limits = livenessLimits(5, 5_000)

/** Looks at given times; a node's heartbeats reach the watcher in the look after they arrived. */
function watchOf(
  looksMs: readonly number[],
  nodes: ReadonlyMap<string, readonly number[]>,
): ReadonlyMap<string, number> {
  let watch = beginWatch(looksMs[0] ?? 0, limits)
  const heard = new Map<string, WatchedNode>()
  for (const id of nodes.keys()) heard.set(id, { nodeId: idFrom(id), heardAtMs: 0 })
  const downAtMs = new Map<string, number>()
  let beforeMs = 0
  for (const nowMs of looksMs) {
    watch = lookAgain(watch, nowMs, limits)
    // Timers run before sockets are read: the look decides before it has heard what came while it was away.
    const silent = [...heard.values()].sort((a, b) => a.heardAtMs - b.heardAtMs)
    for (const id of decideLiveness(silent, watch, limits)) {
      if (!downAtMs.has(id)) downAtMs.set(id, nowMs)
    }
    for (const [id, times] of nodes) {
      if (times.some((atMs) => atMs > beforeMs && atMs <= nowMs)) {
        heard.set(id, { nodeId: idFrom(id), heardAtMs: watch.awakeMs })
      }
    }
    beforeMs = nowMs
  }
  return downAtMs
}

function regularly(untilMs: number, periodMs: number): readonly number[] {
  return Array.from({ length: Math.ceil(untilMs / periodMs) }, (_, index) => index * periodMs)
}

describe('decideLiveness', () => {
  test('however the watcher stalls, a node that keeps speaking is never called down', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            { weight: 20, arbitrary: fc.constant(limits.lookMs) },
            { weight: 2, arbitrary: fc.integer({ min: 1, max: 2_000 }) },
            { weight: 1, arbitrary: fc.integer({ min: 2_000, max: 60_000 }) },
          ),
          { minLength: 10, maxLength: 300 },
        ),
        (gaps) => {
          const looks: number[] = [0]
          for (const gap of gaps) looks.push((looks.at(-1) ?? 0) + gap)
          const untilMs = looks.at(-1) ?? 0
          const down = watchOf(looks, new Map([['a', regularly(untilMs, limits.heartbeatMs)]]))
          assert.deepEqual([...down], [])
        },
      ),
    )
  })

  test('a node that falls silent is down soon after its limit, and only that one', () => {
    const looks = regularly(60_000, limits.lookMs)
    const down = watchOf(
      looks,
      new Map([
        ['silent', regularly(20_000, limits.heartbeatMs)],
        ['speaking', regularly(60_000, limits.heartbeatMs)],
      ]),
    )
    assert.deepEqual([...down.keys()], ['silent'])
    const afterMs = (down.get('silent') ?? 0) - 19_500
    assert.ok(
      afterMs >= limits.silenceMs && afterMs <= limits.silenceMs + 2 * limits.lookMs,
      `${afterMs}`,
    )
  })

  // TCP sends again after 0.2, 0.6 and 1.4 s: what a cut of a second held up is there half a second after it.
  test('a link that is cut for a second loses nobody', () => {
    const looks = regularly(60_000, limits.lookMs)
    const heard = regularly(60_000, limits.heartbeatMs).filter((ms) => ms < 20_000 || ms >= 21_500)
    assert.deepEqual([...watchOf(looks, new Map([['a', heard]]))], [])
  })

  test('a fresh leader waits for nodes to come, and then calls those down that do not', () => {
    const looks = regularly(30_000, limits.lookMs)
    const down = watchOf(
      looks,
      new Map([
        ['late', regularly(30_000, limits.heartbeatMs).filter((ms) => ms > 6_000)],
        ['gone', []],
      ]),
    )
    assert.deepEqual([...down.keys()], ['gone'])
    assert.ok((down.get('gone') ?? 0) >= limits.graceMs)
  })

  const looksOf = (untilMs: number, predecessor: Predecessor) => {
    let watch = beginWatch(0, limits, predecessor)
    const heardAtMs = allowedMs(predecessor.end, limits) - limits.silenceMs - predecessor.sinceMs
    const nodes = [
      { nodeId: predecessor.nodeId, heardAtMs },
      { nodeId: idFrom<'node'>('other'), heardAtMs: 0 },
    ]
    for (let nowMs = limits.lookMs; nowMs <= untilMs; nowMs += limits.lookMs) {
      watch = lookAgain(watch, nowMs, limits)
      const [down] = decideLiveness(nodes, watch, limits)
      if (down !== undefined) return { down, afterMs: nowMs }
    }
    return undefined
  }

  const ends = [
    { name: 'fell silent just now', end: 'silent', sinceMs: 0, wantMs: limits.silenceMs },
    { name: 'fell silent long ago', end: 'silent', sinceMs: 3_500, wantMs: 1_000 },
    { name: 'was killed', end: 'ended', sinceMs: 1_000, wantMs: limits.returnMs - 1_000 },
  ] as const
  for (const { name, end, sinceMs, wantMs } of ends) {
    test(`a leader before that ${name} is down when its own time is over, and nobody else is`, () => {
      const nodeId: NodeId = idFrom('former')
      assert.deepEqual(looksOf(7_000, { nodeId, sinceMs, end }), { down: nodeId, afterMs: wantMs })
    })
  }

  test('a leader before that stopped in order gets the time of a restart', () => {
    const nodeId: NodeId = idFrom('former')
    assert.equal(looksOf(7_000, { nodeId, sinceMs: 0, end: 'stopping' }), undefined)
  })

  test('a leader that was away itself calls nobody down early, the one before neither', () => {
    const nodeId: NodeId = idFrom('former')
    const predecessor = { nodeId, sinceMs: 3_500, end: 'silent' } as const
    let watch = beginWatch(0, limits, predecessor)
    watch = lookAgain(watch, 10_000, limits)
    for (let nowMs = 10_250; nowMs < 17_000; nowMs += limits.lookMs) {
      watch = lookAgain(watch, nowMs, limits)
      assert.deepEqual(decideLiveness([{ nodeId, heardAtMs: -3_500 }], watch, limits), [])
    }
  })

  test('a node that has begun a session with a new leader, or after its stall, is not waited for any longer than ever', () => {
    const nodeId: NodeId = idFrom('known')
    const other: NodeId = idFrom('other')
    const downAfterMs = (beginMs: number, begun: (awakeMs: number) => WatchedNode): number => {
      let watch = beginWatch(0, limits)
      let nowMs = 0
      const look = (ms: number) => {
        nowMs += ms
        watch = lookAgain(watch, nowMs, limits)
      }
      if (beginMs > 0) look(beginMs)
      const nodes = [begun(watch.awakeMs), { nodeId: other, heardAtMs: 0 }]
      const beganAtMs = watch.awakeMs
      for (;;) {
        look(limits.lookMs)
        const [down] = decideLiveness(nodes, watch, limits)
        if (down !== undefined) {
          assert.equal(down, nodeId)
          return watch.awakeMs - beganAtMs
        }
      }
    }
    const known = (awakeMs: number) => ({ nodeId, heardAtMs: awakeMs, openedAtMs: awakeMs })
    assert.equal(downAfterMs(0, known), limits.silenceMs)
    assert.equal(downAfterMs(20_000, known), limits.silenceMs)
  })

  test('nodes get time to come back after the leader was stopped, as long as they had given it up', () => {
    const looks = [
      ...regularly(20_000, limits.lookMs),
      ...regularly(30_000, limits.lookMs).map((ms) => ms + 50_000),
    ]
    const heard = [
      ...regularly(20_000, limits.heartbeatMs),
      ...regularly(24_000, limits.heartbeatMs).map((ms) => ms + 56_000),
    ]
    assert.deepEqual([...watchOf(looks, new Map([['a', heard]]))], [])
  })

  test('the period grows with the cluster, up to the setting', () => {
    const periods = [1, 500, 2_000, 100_000].map(
      (count) => livenessLimits(count, 5_000).heartbeatMs,
    )
    assert.deepEqual(periods, [500, 500, 2_000, 5_000])
    const ids: readonly NodeId[] = decideLiveness([], beginWatch(0, limits), limits)
    assert.deepEqual(ids, [])
  })
})
