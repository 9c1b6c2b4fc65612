import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { checkNoCircle, type Graph, graphOf, reversed, runInOrder, withNeeds } from './graph.ts'

/** Names `0`, `1`, …; each needs only lower ones, so there is no circle. */
const anyGraph = fc
  .array(fc.array(fc.nat(), { maxLength: 4 }), { maxLength: 12 })
  .map((rows): Graph => {
    const entries = rows.map((needs, index) => [
      String(index),
      index === 0 ? [] : [...new Set(needs.map((one) => String(one % index)))],
    ])
    return Object.fromEntries(entries)
  })

describe('the graph of services', () => {
  test('has what depends_on, links, volumes_from and service: modes name', () => {
    const graph = graphOf({
      web: {
        dependsOn: { db: { condition: 'service_started' } },
        links: ['cache:redis'],
        volumesFrom: ['data:ro', 'container:other'],
        networkMode: 'service:proxy',
        pid: 'service:db',
      },
      db: {},
      cache: {},
      data: {},
      proxy: {},
    })
    assert.deepEqual([...(graph['web'] ?? [])].sort(), ['cache', 'data', 'db', 'proxy'])
  })

  test('names a circle as it goes round', () => {
    assert.throws(() => checkNoCircle({ a: ['b'], b: ['c'], c: ['b'] }), /in a circle: b -> c -> b/)
  })

  test('a selection has all that its members need, and no more', () => {
    const graph = { web: ['api'], api: ['db'], db: [], other: ['db'] }
    assert.deepEqual(withNeeds(graph, ['api']), ['api', 'db'])
  })

  test('work begins when all that is needed is done, and what is apart runs at once', async () => {
    await fc.assert(
      fc.asyncProperty(anyGraph, async (graph) => {
        const done = new Set<string>()
        await runInOrder(graph, async (name) => {
          for (const other of graph[name] ?? []) assert.ok(done.has(other))
          await Promise.resolve()
          done.add(name)
        })
        assert.equal(done.size, Object.keys(graph).length)
      }),
    )
  })

  test('stopping goes the other way round', async () => {
    await fc.assert(
      fc.asyncProperty(anyGraph, async (graph) => {
        const done: string[] = []
        await runInOrder(reversed(graph), async (name) => {
          await Promise.resolve()
          done.push(name)
        })
        for (const [name, needs] of Object.entries(graph)) {
          for (const other of needs) assert.ok(done.indexOf(name) < done.indexOf(other))
        }
      }),
    )
  })

  test('after a failure nothing new begins, and what runs is awaited', async () => {
    const seen: string[] = []
    const failing = runInOrder({ a: [], b: [], c: ['a'], d: ['b'] }, async (name) => {
      if (name === 'a') throw new Error('a failed')
      await new Promise((resolve) => setImmediate(resolve))
      seen.push(name)
    })
    await assert.rejects(failing, /a failed/)
    assert.deepEqual(seen, ['b'])
  })
})
