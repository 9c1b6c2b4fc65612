import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type EndpointId, idFrom, type NodeId } from '../model/index.ts'
import { applyFeeds, type FeedChange, type FeedFacts } from '../wire/feed.ts'
import { backendKey, endpointKey, type Fact, Feed, type HashedFact, hashed } from './feed.ts'

const ownId: NodeId = idFrom('own')
const endpointId: EndpointId = idFrom('e')
const head: Fact = {
  type: 'endpoint',
  endpoint: { id: endpointId, name: 'web', mode: 'vip', networks: [], published: true, ports: [] },
}
const backend = (task: number, weight: number): Fact => ({
  type: 'backend',
  endpointId,
  backend: {
    taskId: idFrom(`t${task}`),
    taskName: `web.1.t${task}`,
    nodeId: idFrom('n1'),
    weight,
    addresses: {},
  },
})

function openFeed(): Feed {
  const feed = new Feed('published', 0)
  feed.change(1, new Map([[endpointKey(endpointId), hashed(head)]]))
  return feed
}

/** A step that sets weights of backends; 0: it is gone. Only what differs. */
function step(feed: Feed, weights: readonly (readonly [number, number])[]): void {
  const changes = new Map<string, HashedFact | undefined>()
  for (const [task, weight] of weights) {
    const key = backendKey(endpointId, idFrom(`t${task}`))
    const after = weight === 0 ? undefined : hashed(backend(task, weight))
    if (feed.get(key)?.high === after?.high) changes.delete(key)
    else changes.set(key, after)
  }
  if (changes.size > 0) feed.change(feed.version + 1, changes)
}

const told = (before: FeedFacts | undefined, change: FeedChange): FeedFacts =>
  applyFeeds(before, false, { put: [change], remove: [] }, ownId)
const weightsOf = (facts: FeedFacts | undefined) =>
  (facts?.endpoints.get(endpointId)?.backends ?? [])
    .map(({ taskId, weight }) => [String(taskId), weight] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))

describe('a feed', () => {
  const anySteps = fc.array(
    fc.array(fc.tuple(fc.nat(40), fc.nat(3)), { minLength: 1, maxLength: 10 }),
    { minLength: 1, maxLength: 300 },
  )

  test('whoever looks at it, however often, comes to know the same', () => {
    fc.assert(
      fc.property(anySteps, fc.integer({ min: 1, max: 200 }), (steps, every) => {
        const feed = openFeed()
        let often = told(undefined, feed.since(undefined))
        let seldom = often
        let [oftenAt, seldomAt] = [feed.version, feed.version]
        for (const [at, weights] of steps.entries()) {
          step(feed, weights)
          often = told(often, feed.since(oftenAt))
          oftenAt = feed.version
          if (at % every > 0) continue
          seldom = told(seldom, feed.since(seldomAt))
          seldomAt = feed.version
        }
        seldom = told(seldom, feed.since(seldomAt))
        const whole = told(undefined, feed.since(undefined))
        assert.deepEqual(weightsOf(often), weightsOf(whole))
        assert.deepEqual(weightsOf(seldom), weightsOf(whole))
      }),
      { numRuns: 50 },
    )
  })

  test('a change of many facts comes in parts, and to the same; what is behind an endpoint goes with it', () => {
    const feed = openFeed()
    let facts = told(undefined, feed.since(undefined))
    const change = (weights: readonly (readonly [number, number])[]) => {
      const { version } = feed
      step(feed, weights)
      const since = feed.since(version)
      facts = told(facts, since)
      assert.deepEqual(weightsOf(facts), weightsOf(told(undefined, feed.since(undefined))))
      return since.parts.length
    }
    const all = Array.from({ length: 900 }, (_, task) => task)
    assert.equal(change(all.map((task) => [task, 1])), 2)
    assert.equal(change(all.slice(300).map((task) => [task, task % 2 === 0 ? 0 : 2])), 2)
    assert.equal(weightsOf(facts).length, 600)

    const { version } = feed
    const gone = [endpointKey(endpointId)]
    for (const taskId of feed.backendsOf(endpointId)) gone.push(backendKey(endpointId, taskId))
    feed.change(version + 1, new Map(gone.map((key) => [key, undefined])))
    const { parts } = feed.since(version)
    assert.equal(parts.length, 1)
    assert.equal(told(facts, feed.since(version)).endpoints.size, 0)
    assert.equal(feed.isEmpty, true)
  })

  test('has the same digest whatever way it came to be so, and another otherwise', () => {
    fc.assert(
      fc.property(anySteps, (steps) => {
        const one = openFeed()
        for (const weights of steps) step(one, weights)
        const another = openFeed()
        const weights = weightsOf(told(undefined, one.since(undefined)))
        step(
          another,
          weights.toReversed().map(([task, weight]) => [Number(task.slice(1)), weight] as const),
        )
        assert.equal(one.digest, another.digest)
        step(another, [[50, 1]])
        assert.notEqual(one.digest, another.digest)
      }),
      { numRuns: 50 },
    )
  })

  test('that says of two tasks what it said of the other has another digest', () => {
    const [one, another] = [openFeed(), openFeed()]
    for (let pair = 0; pair < 100; pair += 2) {
      step(one, [
        [pair, 1],
        [pair + 1, 2],
      ])
      step(another, [
        [pair, 2],
        [pair + 1, 1],
      ])
      assert.notEqual(one.digest, another.digest)
      step(another, [
        [pair, 1],
        [pair + 1, 2],
      ])
    }
    assert.equal(one.digest, another.digest)
  })

  test('is told whole to who is too far behind, and as the same parts to everybody', () => {
    const feed = openFeed()
    const before = feed.digest
    assert.equal(feed.versionOf(before), feed.version)
    for (let round = 1; round <= 40; round++)
      step(
        feed,
        Array.from({ length: 40 }, (_, task) => [task, round] as const),
      )
    assert.equal(feed.versionOf(before), undefined)
    assert.equal(feed.since(1).whole, true)
    assert.equal(feed.since(feed.version - 1).whole, false)
    assert.equal(feed.since(feed.version - 1).parts[0], feed.since(feed.version - 1).parts[0])
    assert.equal(feed.since(undefined).parts[0], feed.since(undefined).parts[0])
  })
})

describe('several feeds', () => {
  const feedIds = ['endpoints/a', 'endpoints/b']
  const endpointIds = ['e1', 'e2', 'e3'] as const
  const headOn = (id: string, feed: number): Fact => {
    const place = { networkId: idFrom<'network'>(feed === 0 ? 'a' : 'b'), vip: '', aliases: [] }
    const names = { id: idFrom<'endpoint'>(id), name: id, mode: 'vip' } as const
    return {
      type: 'endpoint',
      endpoint: { ...names, networks: [place], ports: [] },
    }
  }
  const behind = (id: string, task: number): Fact => {
    const fact = backend(task, 1)
    assert(fact.type === 'backend')
    return { ...fact, endpointId: idFrom(id) }
  }
  const keyOf = (fact: Fact): string => {
    if (fact.type === 'endpoint') return endpointKey(fact.endpoint.id)
    assert(fact.type === 'backend')
    return backendKey(fact.endpointId, fact.backend.taskId)
  }
  /** One endpoint is on this feed from now on (2: on none), with these tasks. */
  const anyMove = fc.record({
    endpoint: fc.nat(2),
    feed: fc.nat(2),
    tasks: fc.uniqueArray(fc.nat(3), { maxLength: 3 }),
    isLooked: fc.boolean(),
  })

  test('what moves between them is where it came to be, for whoever looks seldom too, in any order', () => {
    fc.assert(
      fc.property(fc.array(anyMove, { maxLength: 30 }), fc.boolean(), (moves, isReversed) => {
        const feeds = feedIds.map((id) => new Feed(id, 0))
        const facts = new Map<string, readonly [number, readonly Fact[]]>()
        let version = 0
        let known: FeedFacts | undefined
        let knownVersions: readonly (number | undefined)[] = [undefined, undefined]
        const look = () => {
          const put = feeds.map((feed, at) => feed.since(knownVersions[at]))
          known = applyFeeds(
            known,
            false,
            { put: isReversed ? put.toReversed() : put, remove: [] },
            ownId,
          )
          knownVersions = feeds.map((feed) => feed.version)
          const told = [...known.endpoints.values()].map(({ id, networks, backends }) =>
            [id, networks[0]?.networkId, ...backends.map(({ taskId }) => taskId).toSorted()].join(),
          )
          const wanted = [...facts].flatMap(([id, [feed, [, ...tasks]]]) => {
            const ids = tasks.map((fact) => keyOf(fact).slice('b/e1/'.length)).toSorted()
            return feed > 1 ? [] : [[id, feed === 0 ? 'a' : 'b', ...ids].join()]
          })
          assert.deepEqual(told.toSorted(), wanted.toSorted())
        }
        look()
        for (const move of moves) {
          const id = endpointIds[move.endpoint] ?? 'e1'
          const [oldFeed, oldFacts] = facts.get(id) ?? [2, []]
          const newFacts =
            move.feed > 1
              ? []
              : [headOn(id, move.feed), ...move.tasks.map((task) => behind(id, task))]
          facts.set(id, [move.feed, newFacts])
          version += 1
          for (const [at, feed] of feeds.entries()) {
            const changes = new Map<string, HashedFact | undefined>()
            if (oldFeed === at) for (const fact of oldFacts) changes.set(keyOf(fact), undefined)
            if (move.feed === at)
              for (const fact of newFacts) changes.set(keyOf(fact), hashed(fact))
            if (changes.size > 0) feed.change(version, changes)
          }
          if (move.isLooked) look()
        }
        look()
      }),
      { numRuns: 300 },
    )
  })
})
