import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { Endpoint, ObjectByKind, Task } from '../model/index.ts'
import { idFrom } from '../model/index.ts'
import { MemoryView } from './memory-view.ts'
import { buildEndpoint, buildTask } from './test-objects.ts'

const ids = ['a', 'b', 'c', 'd', 'e']
const names = ['Web', 'web', 'db', 'x']
const places = ['p', 'q', 'r']
const anyPlaces = fc.uniqueArray(fc.constantFrom(...places), { maxLength: 3 })

const anyTask: fc.Arbitrary<Task> = fc
  .record({
    id: fc.constantFrom(...ids),
    name: fc.constantFrom(...names),
    namespace: fc.constantFrom('default', 'other'),
    workload: fc.constantFrom(...places),
    node: fc.option(fc.constantFrom(...places), { nil: undefined }),
    networks: fc.array(fc.constantFrom(...places), { maxLength: 3 }),
  })
  .map(({ id, name, namespace, workload, node, networks }) => ({
    ...buildTask(id, { workload, networks, ...(node === undefined ? {} : { node }) }),
    name,
    namespace,
  }))

const anyEndpoint: fc.Arbitrary<Endpoint> = fc
  .record({
    id: fc.constantFrom(...ids),
    workloads: anyPlaces,
    networks: anyPlaces,
    vips: anyPlaces,
  })
  .map(({ id, ...options }) => buildEndpoint(id, options))

const anyStep = fc.oneof(
  { weight: 5, arbitrary: fc.record({ put: fc.oneof(anyTask, anyEndpoint) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      remove: fc.record({
        kind: fc.constantFrom('task' as const, 'endpoint' as const),
        id: fc.constantFrom(...ids),
      }),
    }),
  },
  // Lists are kept from one reading to the next: what is read when must make no difference.
  { weight: 2, arbitrary: fc.constant({ read: true as const }) },
)

/** Objects in order of creation: what the view must show, without any index. */
class NaiveView {
  readonly #objects: (Task | Endpoint)[] = []

  put(object: Task | Endpoint): void {
    const at = this.#objects.findIndex(({ kind, id }) => kind === object.kind && id === object.id)
    if (at < 0) this.#objects.push(object)
    else this.#objects[at] = object
  }

  delete(wanted: 'task' | 'endpoint', id: string): void {
    const at = this.#objects.findIndex((object) => object.kind === wanted && object.id === id)
    if (at >= 0) this.#objects.splice(at, 1)
  }

  tasks(isWanted: (task: Task) => boolean): readonly Task[] {
    return this.#objects.filter((object) => object.kind === 'task').filter(isWanted)
  }

  endpoints(isWanted: (endpoint: Endpoint) => boolean): readonly Endpoint[] {
    return this.#objects.filter((object) => object.kind === 'endpoint').filter(isWanted)
  }
}

function compare(view: MemoryView, naive: NaiveView): void {
  const same = <K extends 'task' | 'endpoint'>(
    seen: Iterable<ObjectByKind[K]>,
    wanted: readonly ObjectByKind[K][],
    why: string,
  ) => assert.deepEqual([...seen], wanted, why)
  same<'task'>(
    view.list('task'),
    naive.tasks(() => true),
    'all tasks',
  )
  for (const place of places) {
    same<'task'>(
      view.tasksOfWorkload(idFrom(place)),
      naive.tasks(({ workloadId }) => workloadId === place),
      `tasks of workload ${place}`,
    )
    same<'task'>(
      view.tasksOfNode(idFrom(place)),
      naive.tasks(({ nodeId }) => nodeId === place),
      `tasks of node ${place}`,
    )
    same<'task'>(
      view.tasksOnNetwork(idFrom(place)),
      naive.tasks(({ addresses }) => addresses.some(({ networkId }) => networkId === place)),
      `tasks on network ${place}`,
    )
    same<'endpoint'>(
      view.endpointsOfWorkload(idFrom(place)),
      naive.endpoints(({ spec }) => spec.backends.some(({ workloadId }) => workloadId === place)),
      `endpoints of workload ${place}`,
    )
    same<'endpoint'>(
      view.endpointsOnNetwork(idFrom(place)),
      naive.endpoints(({ spec, status }) =>
        [...spec.networks, ...status.vips].some(({ networkId }) => networkId === place),
      ),
      `endpoints on network ${place}`,
    )
  }
  for (const wanted of names) {
    for (const namespace of ['default', 'other']) {
      same<'task'>(
        view.byName('task', wanted, namespace),
        naive.tasks(
          (task) =>
            task.namespace === namespace && task.name.toLowerCase() === wanted.toLowerCase(),
        ),
        `tasks named ${wanted} in ${namespace}`,
      )
    }
  }
}

describe('the view in memory', () => {
  test('shows by every index what a plain list of all objects shows', () => {
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 60 }), (steps) => {
        const view = new MemoryView()
        const naive = new NaiveView()
        for (const step of steps) {
          if ('put' in step) {
            view.put(step.put)
            naive.put(step.put)
          } else if ('remove' in step) {
            view.delete(step.remove.kind, step.remove.id)
            naive.delete(step.remove.kind, step.remove.id)
          } else compare(view, naive)
        }
        compare(view, naive)
      }),
      { numRuns: 300 },
    )
  })

  test('a list that was read stays as it was, and is the same one until it changes', () => {
    const view = new MemoryView()
    view.put(buildTask('a', { workload: 'p' }))
    const before = view.tasksOfWorkload(idFrom('p'))
    view.put(buildTask('b', { workload: 'q' }))
    assert.equal(view.tasksOfWorkload(idFrom('p')), before)
    view.put(buildTask('c', { workload: 'p' }))
    assert.deepEqual(
      before.map(({ id }) => id),
      ['a'],
    )
    assert.equal(view.tasksOfWorkload(idFrom('p')).length, 2)
  })
})
