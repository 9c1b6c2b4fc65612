import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isLive, type Task, type UpdatePolicy, type WorkloadMode } from '../model/index.ts'
import { buildUpdatePolicy, buildWorkload } from '../model/testing.ts'
import { SmallWorld } from './small-world.ts'

const hourMs = 3_600_000
const runs = { numRuns: 60 }

function openWorld(
  mode: WorkloadMode,
  update: Partial<UpdatePolicy>,
  seed: number,
  check?: (world: SmallWorld) => void,
): SmallWorld {
  const policy = buildUpdatePolicy(update)
  const workload = buildWorkload({ spec: { mode, update: policy, rollback: policy } })
  return new SmallWorld(workload, 4, seed, check)
}

const keyOf = (task: Task) => task.slot ?? task.pinnedNodeId ?? ''

/** Tasks that may have a running container, by place. A node that is down may run what it likes. */
function startedByPlace(world: SmallWorld): Map<string | number, Task[]> {
  const byPlace = new Map<string | number, Task[]>()
  for (const task of world.tasks) {
    const node = task.nodeId && world.view.get('node', task.nodeId)
    if (!node || node.status.state === 'down') continue
    if (task.status.state !== 'starting' && task.status.state !== 'running') continue
    byPlace.set(keyOf(task), [...(byPlace.get(keyOf(task)) ?? []), task])
  }
  return byPlace
}

const anyPolicy = fc.record({
  parallelism: fc.integer({ min: 0, max: 3 }),
  delayMs: fc.constantFrom(0, 3000),
  monitorMs: fc.constantFrom(0, 5000),
  onFailure: fc.constantFrom('pause', 'continue', 'rollback'),
  order: fc.constantFrom('stopFirst', 'startFirst'),
  maxFailureRatio: fc.constantFrom(0, 0.3),
  progressDeadlineMs: fc.constantFrom(20_000, 600_000),
} as const)

type Step = (world: SmallWorld) => void
const anyFault: fc.Arbitrary<Step> = fc.oneof(
  fc.nat(9).map(
    (i): Step =>
      (world) =>
        world.failTask(i),
  ),
  fc.nat(3).map(
    (i): Step =>
      (world) =>
        world.setNode(i, { state: 'down' }),
  ),
  fc.nat(3).map(
    (i): Step =>
      (world) =>
        world.setNode(i, { state: 'ready' }),
  ),
  fc.tuple(fc.nat(3), fc.constantFrom('active' as const, 'pause' as const, 'drain' as const)).map(
    ([i, availability]): Step =>
      (world) =>
        world.setNode(i, { availability }),
  ),
  fc.constantFrom('good' as const, 'bad' as const).map(
    (image): Step =>
      (world) =>
        world.declare({ image }),
  ),
  fc.integer({ min: 1, max: 30 }).map(
    (s): Step =>
      (world) =>
        world.advance(s * 1000),
  ),
  fc.nat(8).map(
    (count): Step =>
      (world) => {
        const { mode } = world.workload.spec
        if (mode.type === 'replicated') world.declare({ mode: { ...mode, replicas: count } })
        if (mode.type === 'replicatedJob')
          world.declare({ mode: { ...mode, totalCompletions: count } })
      },
  ),
)
const anyFaults = fc.array(anyFault, { maxLength: 25 })

/** Ends the faults and declares something that works. */
function heal(world: SmallWorld): void {
  for (const index of world.nodes.keys())
    world.setNode(index, { availability: 'active', state: 'ready' })
  world.declare({ image: 'good' })
}

function assertQuiet(world: SmallWorld): void {
  for (const laterMs of [0, 1000, hourMs, 30 * 24 * hourMs]) {
    world.nowMs += laterMs
    assert.deepEqual(world.decide(), [], `decides nothing ${laterMs} ms later`)
  }
}

const modes: WorkloadMode[] = [
  { type: 'replicated', replicas: 5 },
  { type: 'global' },
  { type: 'replicatedJob', maxConcurrent: 2, totalCompletions: 5 },
  { type: 'globalJob' },
]

describe('whatever happens to a workload', () => {
  for (const mode of modes) {
    test(`${mode.type}: it becomes as declared, and then rests`, () => {
      fc.assert(
        fc.property(anyPolicy, anyFaults, fc.nat(), (policy, faults, seed) => {
          const isJob = mode.type === 'replicatedJob' || mode.type === 'globalJob'
          // A move to another node starts first, whatever the order of updates; one-per-node tasks don't move.
          const startsFirst = policy.order === 'startFirst' || mode.type === 'replicated'
          const startedMax = startsFirst && !isJob ? 2 : 1
          const world = openWorld(mode, policy, seed, (now) => {
            for (const [place, tasks] of startedByPlace(now)) {
              const serving = tasks.filter(isLive)
              assert(serving.length <= startedMax, `${serving.length} tasks serve at ${place}`)
            }
          })
          for (const fault of faults) fault(world)
          heal(world)
          world.advance(180_000)

          const wanted = world.workload.spec.mode
          const places = new Set(world.tasks.filter((task) => isJob || isLive(task)).map(keyOf))
          const want =
            wanted.type === 'replicated'
              ? wanted.replicas
              : wanted.type === 'replicatedJob'
                ? wanted.totalCompletions
                : 4
          assert.equal(places.size, want)
          for (const place of places) {
            const tasks = world.tasks.filter((task) => keyOf(task) === place)
            const good = tasks.filter((task) =>
              isJob ? task.status.state === 'complete' : isLive(task) && world.isUp(task),
            )
            assert.equal(good.length, 1)
            assert.equal(good[0]?.revisionId, world.workload.spec.revisionId)
          }
          if (!isJob) {
            assert.equal(world.tasks.filter(isLive).length, want)
            assert.equal(world.workload.status.update?.state, 'completed')
          }
          assertQuiet(world)
        }),
        runs,
      )
    })
  }

  test('once removed, nothing of it is left', () => {
    fc.assert(
      fc.property(anyFaults, fc.nat(), (faults, seed) => {
        const world = openWorld({ type: 'replicated', replicas: 4 }, {}, seed)
        for (const fault of faults) fault(world)
        for (const index of world.nodes.keys()) world.setNode(index, { state: 'ready' })
        world.remove()
        world.advance(60_000)
        assert.equal(world.tasks.length, 0)
        assert.equal(world.view.count('revision'), 0)
      }),
      runs,
    )
  })
})

describe('an update without faults', () => {
  test('never has more slots down or doubled than its parallelism', () => {
    fc.assert(
      fc.property(anyPolicy, fc.integer({ min: 1, max: 8 }), fc.nat(), (policy, replicas, seed) => {
        let watching = false
        const most = policy.parallelism === 0 ? replicas : policy.parallelism
        const world = openWorld({ type: 'replicated', replicas }, policy, seed, (now) => {
          if (!watching) return
          const live = now.tasks.filter(isLive)
          const upSlots = new Set(live.filter((task) => now.isUp(task)).map(keyOf))
          const slotsDown = replicas - upSlots.size
          if (policy.order === 'startFirst') assert.equal(slotsDown, 0, 'no slot is ever down')
          else assert(slotsDown <= most, `${slotsDown} slots are down`)
          assert(live.length - replicas <= most, 'no more are doubled')
        })
        world.advance(60_000)
        watching = true
        world.declare({ image: 'good' })
        world.advance(180_000)
        assert.equal(world.workload.status.update?.state, 'completed')
        assertQuiet(world)
      }),
      runs,
    )
  })

  test('drains node after node without a slot down, a few slots at a time', () => {
    fc.assert(
      fc.property(
        anyPolicy,
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.nat(3), { minLength: 1, maxLength: 4 }),
        fc.nat(),
        (policy, replicas, drained, seed) => {
          let watching = false
          const most = policy.parallelism || replicas
          const world = openWorld({ type: 'replicated', replicas }, policy, seed, (now) => {
            if (!watching) return
            const live = now.tasks.filter(isLive)
            const upSlots = new Set(live.filter((task) => now.isUp(task)).map(keyOf))
            assert.equal(upSlots.size, replicas, 'no slot is ever down')
            assert(live.length - replicas <= Math.max(most, Math.floor(replicas / 4)))
          })
          world.advance(60_000)
          watching = true
          for (const index of drained) {
            world.setNode(index, { availability: 'drain' })
            world.advance(120_000)
            const id = world.nodes[index]?.id
            assert.equal(world.tasks.filter((task) => isLive(task) && task.nodeId === id).length, 0)
            world.setNode(index, { availability: 'active' })
            assertQuiet(world)
          }
        },
      ),
      runs,
    )
  })

  test('to something broken stops at the failure ratio, and acts as told', () => {
    fc.assert(
      fc.property(anyPolicy, fc.integer({ min: 1, max: 8 }), fc.nat(), (policy, replicas, seed) => {
        let watching = false
        const world = openWorld({ type: 'replicated', replicas }, policy, seed, (now) => {
          if (!watching || policy.onFailure === 'continue') return
          const touched = new Set(
            now.tasks
              .filter((task) => task.revisionId === 'r2' && task.desiredState !== 'ready')
              .map(keyOf),
          )
          const parallel = policy.parallelism === 0 ? replicas : policy.parallelism
          const mayFail = Math.floor(policy.maxFailureRatio * replicas)
          assert(touched.size <= mayFail + parallel, `${touched.size} of ${replicas} were touched`)
        })
        world.advance(60_000)
        watching = true
        world.declare({ image: 'bad' })
        world.advance(600_000)
        const { status, spec } = world.workload
        const up = new Set(world.tasks.filter((task) => world.isUp(task)).map(keyOf)).size
        switch (policy.onFailure) {
          case 'pause': {
            const { state, message } = status.update ?? {}
            if (state === 'paused') {
              assert.match(
                message ?? '',
                /^update paused due to failure or early termination of task /,
              )
            } else assert(1 / replicas <= policy.maxFailureRatio, 'only borne failures go on')
            break
          }
          case 'rollback':
            if (status.update?.state === 'rollbackCompleted') {
              assert.equal(spec.revisionId, 'r1')
              assert.equal(up, replicas)
            } else assert(1 / replicas <= policy.maxFailureRatio, 'only borne failures go on')
            break
          case 'continue':
            assert.equal(spec.revisionId, 'r2')
        }
        if (policy.order === 'startFirst') assert.equal(up, replicas, 'the old tasks still serve')
      }),
      runs,
    )
  })
})
