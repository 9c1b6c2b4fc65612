import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { buildContainer, buildTemplate, buildUpdatePolicy } from '../model/testing.ts'
import { OneNode, published } from './one-node.ts'

const withImage = (image: string) => buildTemplate({ containers: [buildContainer({ image })] })

describe('one node', () => {
  test('runs what is declared, and then rests', async () => {
    const sim = new OneNode(1)
    await sim.start()
    const web = await sim.create('web', 3)
    await sim.clock.advance(100)
    assert.equal(sim.running(web).length, 3)
    assert.equal(sim.runtime.runningCount(), 3)
    await sim.clock.advance(60_000)
    const { revision } = sim.store.view
    await sim.clock.advance(3_600_000)
    assert.equal(
      sim.store.view.revision,
      revision,
      'something was written although nothing happened',
    )
    await sim.stop()
  })

  test('replaces a container that dies, after the delay', async () => {
    const sim = new OneNode(2)
    await sim.start()
    const web = await sim.create('web', 2)
    await sim.clock.advance(100)
    const [victim] = sim.running(web)
    assert.ok(victim)
    sim.runtime.kill(victim.id, 1)
    await sim.clock.advance(1_000)
    assert.equal(sim.running(web).length, 1)
    await sim.clock.advance(5_000)
    assert.equal(sim.running(web).length, 2)
    assert.match(sim.store.view.get('task', victim.id)?.status.error ?? '', /non-zero exit \(1\)/)
    await sim.stop()
  })

  test('a restart of the daemon restarts no container', async () => {
    const sim = new OneNode(3)
    await sim.start()
    const web = await sim.create('web', 3)
    await sim.clock.advance(100)
    const before = sim.running(web).map(({ id }) => id)
    await sim.stopLoops()
    await sim.clock.advance(5_000)
    await sim.startLoops()
    await sim.clock.advance(60_000)
    assert.deepEqual(
      sim.running(web).map(({ id }) => id),
      before,
    )
    assert.equal(sim.runtime.runningCount(), 3)
    await sim.stop()
  })

  test('sends traffic to a task only while it is healthy, and takes it away before the stop', async () => {
    const sim = new OneNode(4, () => ({ health: { healthyAfterMs: 2_500 }, stopMs: 500 }))
    await sim.start()
    const web = await sim.create('web', 2, { endpoint: published })
    await sim.clock.advance(1_000)
    assert.deepEqual(sim.routed(), [])
    await sim.clock.advance(3_000)
    assert.equal(sim.routed().length, 2)
    await sim.update(web, 1, { endpoint: published })
    sim.dataPlane.openConnectionsNow = 1
    await sim.clock.advance(1_000)
    assert.equal(sim.routed().length, 1, 'the task that goes still gets connections')
    assert.equal(sim.runtime.runningCount(), 2, 'it was stopped although a connection was open')
    sim.dataPlane.openConnectionsNow = 0
    await sim.clock.advance(2_000)
    assert.equal(sim.runtime.runningCount(), 1)
    await sim.stop()
  })

  test('sends nobody to a task without a health check before it listens, and waits some seconds for that', async () => {
    const sim = new OneNode(14)
    await sim.start()
    sim.dataPlane.isListening = false
    const web = await sim.create('web', 1, { endpoint: published })
    await sim.clock.advance(1_500)
    assert.deepEqual(sim.routed(), [])
    const [task] = [...sim.store.view.list('task')].filter((one) => one.workloadId === web)
    assert.match(task?.status.message ?? '', /nothing listens on port \d+\/tcp yet/)
    sim.dataPlane.isListening = true
    await sim.clock.advance(500)
    assert.equal(sim.routed().length, 1)
    sim.dataPlane.isListening = false
    const ports = published.ports.map((port) => ({ ...port, publishedPort: 8081 }))
    await sim.create('mute', 1, { endpoint: { ...published, ports } })
    await sim.clock.advance(2_000)
    assert.equal(sim.routed().length, 1)
    await sim.clock.advance(3_000)
    assert.equal(sim.routed().length, 2)
    await sim.stop()
  })

  test('rolls over start-first without ever having fewer routed tasks', async () => {
    const sim = new OneNode(5, () => ({ health: { healthyAfterMs: 1_500 } }))
    await sim.start()
    const update = buildUpdatePolicy({ order: 'startFirst', parallelism: 1 })
    const web = await sim.create('web', 3, {
      endpoint: published,
      update,
      template: withImage('web:1'),
    })
    await sim.clock.advance(5_000)
    assert.equal(sim.routed().length, 3)
    await sim.update(web, 3, { endpoint: published, update, template: withImage('web:2') })
    let least = 3
    for (let step = 0; step < 400; step++) {
      await sim.clock.advance(100)
      least = Math.min(least, sim.routed().length)
    }
    assert.equal(least, 3)
    const wanted = sim.store.view.get('workload', web)
    assert.equal(wanted?.status.update?.state, 'completed')
    for (const task of sim.running(web)) assert.equal(task.revisionId, wanted?.spec.revisionId)
    assert.equal(sim.running(web).length, 3)
    await sim.stop()
  })

  test('goes back by itself when the new version does not start', async () => {
    const sim = new OneNode(6, ({ template }) =>
      template.containers[0]?.image === 'web:bad' ? { exits: { afterMs: 200, code: 1 } } : {},
    )
    await sim.start()
    const update = buildUpdatePolicy({ onFailure: 'rollback' })
    const web = await sim.create('web', 3, { update, template: withImage('web:1') })
    await sim.clock.advance(10_000)
    await sim.update(web, 3, { update, template: withImage('web:bad') })
    await sim.clock.advance(60_000)
    const workload = sim.store.view.get('workload', web)
    assert.equal(workload?.status.update?.state, 'rollbackCompleted')
    assert.equal(sim.running(web).length, 3)
    for (const { revisionId } of sim.running(web)) {
      const image = sim.store.view.get('revision', revisionId)?.template.containers[0]?.image
      assert.equal(image, 'web:1')
    }
    await sim.stop()
  })

  test('goes back even when the new version fails after the update was called complete', async () => {
    const sim = new OneNode(8, ({ template }) =>
      template.containers[0]?.image === 'web:bad' ? { exits: { afterMs: 3_000, code: 1 } } : {},
    )
    await sim.start()
    const update = buildUpdatePolicy({ onFailure: 'rollback', parallelism: 0 })
    const web = await sim.create('web', 3, { update, template: withImage('web:1') })
    await sim.clock.advance(10_000)
    await sim.update(web, 3, { update, template: withImage('web:bad') })
    await sim.clock.advance(2_500)
    assert.equal(sim.store.view.get('workload', web)?.status.update?.state, 'completed')
    await sim.clock.advance(60_000)
    assert.equal(sim.store.view.get('workload', web)?.status.update?.state, 'rollbackCompleted')
    assert.equal(sim.running(web).length, 3)
    await sim.stop()
  })

  test('a missing image is tried again with growing pauses, not without any', async () => {
    const sim = new OneNode(9, () => ({ pullFails: 'No such image: web:none' }))
    await sim.start()
    const created: number[] = []
    sim.store.subscribe(({ atMs, changes }) => {
      for (const { before, after } of changes)
        if (!before && after?.kind === 'task') created.push(atMs)
    })
    await sim.create('web', 1)
    await sim.clock.advance(60_000)
    assert.ok(created.length >= 3 && created.length <= 8, `${created.length} tasks in a minute`)
    await sim.stop()
  })

  test('removing a service leaves nothing behind', async () => {
    const sim = new OneNode(7)
    await sim.start()
    const web = await sim.create('web', 3, { endpoint: published })
    await sim.clock.advance(1_000)
    await sim.control.removeWorkload(web)
    await sim.clock.advance(60_000)
    assert.equal(sim.runtime.runningCount(), 0)
    assert.equal(sim.store.view.count('task'), 0)
    assert.equal(sim.store.view.count('revision'), 0)
    assert.deepEqual(sim.routed(), [])
    await sim.stop()
  })
})
