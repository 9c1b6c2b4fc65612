import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../base/index.ts'
import { type AnyObject, idFrom, kinds, uniquelyNamedKinds } from '../model/index.ts'
import type { Change, Commit, LeaderEpoch, Store, View } from './store.ts'
import { changesPerCommitMax, objectSizeMax } from './store.ts'
import { buildConfig, buildEndpoint, buildNode, buildRevision, buildTask } from './test-objects.ts'

/** A place that stores are opened on, one after the other. */
export interface StorePlace {
  open(): Promise<Store & LeaderEpoch>
  remove(): Promise<void>
}

export interface StoreContractOptions {
  /** Whether a place keeps what was committed when its store is closed. */
  readonly durable: boolean
  /** Random histories tried. */
  readonly histories?: number
}

const create = (object: AnyObject): Change => ({ type: 'create', object })
const update = (object: AnyObject): Change => ({ type: 'update', object })
const remove = ({ kind, id, version }: AnyObject): Change => ({ type: 'delete', kind, id, version })

/** What every store must do. `newPlace` makes an empty place. */
export function describeStoreContract(
  name: string,
  newPlace: () => Promise<StorePlace> | StorePlace,
  options: StoreContractOptions,
): void {
  /** A test on an empty store, closed and removed afterwards whatever happens. */
  function on(
    title: string,
    body: (store: Store & LeaderEpoch, place: StorePlace) => Promise<void>,
  ) {
    test(title, async () => {
      const place = await newPlace()
      const store = await place.open()
      try {
        await body(store, place)
      } finally {
        await store.close()
        await place.remove()
      }
    })
  }

  describe(`${name} keeps the store contract`, () => {
    on('a created object gets its version, times and spec version', async (store) => {
      const commit = await store.commit([create(buildConfig('a', { data: 'x' }))])
      const config = store.view.get('config', 'a')
      assert.ok(config)
      const { revision } = commit
      assert.ok(revision >= 1)
      assert.deepEqual(
        [config.version, config.specVersion, config.createdAtMs, config.updatedAtMs],
        [revision, revision, commit.atMs, commit.atMs],
      )
      assert.deepEqual(commit.changes, [{ kind: 'config', id: 'a', after: config }])
      assert.equal(config.data, 'x')
    })

    on('a change of status leaves the spec version, a change of spec moves it', async (store) => {
      await store.commit([create(buildConfig('a'))])
      const first = store.view.get('config', 'a')
      assert.ok(first)
      await store.commit([update(first)])
      const second = store.view.get('config', 'a')
      assert.ok(second)
      assert.ok(second.version > first.version)
      assert.equal(second.specVersion, first.version)
      await store.commit([{ type: 'update', object: second, specChanged: true }])
      const third = store.view.get('config', 'a')
      assert.ok(third && third.version > second.version)
      assert.equal(third.specVersion, third.version)
      assert.equal(first.specVersion, first.version, 'what was read before stays as it was')
    })

    on('a commit happens whole or not at all', async (store) => {
      await store.commit([create(buildConfig('a'))])
      const before = picture(store.view)
      const cases: { changes: Change[]; code: string }[] = [
        { changes: [create(buildConfig('b')), create(buildConfig('a'))], code: 'conflict' },
        {
          changes: [create(buildConfig('b')), create(buildConfig('c', { name: 'A' }))],
          code: 'conflict',
        },
        { changes: [create(buildConfig('b')), update(buildConfig('a'))], code: 'outOfSequence' },
        { changes: [create(buildConfig('b')), update(buildConfig('x'))], code: 'notFound' },
        { changes: [create(buildConfig('b')), remove(buildConfig('x'))], code: 'notFound' },
        { changes: [create(buildConfig('b')), remove(buildConfig('a'))], code: 'outOfSequence' },
        { changes: [create(buildConfig('b')), create(buildConfig('b'))], code: 'invalidInput' },
        {
          changes: Array.from({ length: changesPerCommitMax + 1 }, (_, i) =>
            create(buildConfig(`n${i}`)),
          ),
          code: 'tooLarge',
        },
        {
          changes: [
            create(buildConfig('b')),
            create(buildConfig('c', { data: 'x'.repeat(objectSizeMax) })),
          ],
          code: 'tooLarge',
        },
      ]
      for (const { changes, code } of cases) {
        await assert.rejects(store.commit(changes), (error) => {
          assert.ok(error instanceof UserError)
          assert.equal(error.code, code, error.message)
          assert.ok(error.next, 'says what to do next')
          return true
        })
        assert.deepEqual(picture(store.view), before)
      }
      await store.commit([create(buildConfig('b'))])
    })

    on('of two commits on one version one wins', async (store) => {
      await store.commit([create(buildConfig('a'))])
      const config = store.view.get('config', 'a')
      assert.ok(config)
      const outcomes = await Promise.allSettled([
        store.commit([update({ ...config, data: 'first' })]),
        store.commit([update({ ...config, data: 'second' })]),
        store.commit([remove(config)]),
      ])
      assert.deepEqual(outcomes.map(codeOf), ['done', 'outOfSequence', 'outOfSequence'])
      assert.equal(store.view.get('config', 'a')?.data, 'first')
    })

    on('a unique name has one owner, whatever the case, in flight too', async (store) => {
      const outcomes = await Promise.allSettled([
        store.commit([create(buildConfig('a', { name: 'Web' }))]),
        store.commit([create(buildConfig('b', { name: 'wEB' }))]),
        store.commit([create(buildEndpoint('c', { name: 'web' }))]),
        store.commit([create({ ...buildConfig('d', { name: 'web' }), namespace: 'other' })]),
      ])
      assert.deepEqual(outcomes.map(codeOf), ['done', 'conflict', 'done', 'done'])
      assert.deepEqual(
        store.view.byName('config', 'WEB').map((config) => config.id),
        ['a'],
      )
      assert.deepEqual(
        store.view.byName('config', 'web', 'other').map((config) => config.id),
        ['d'],
      )
      await store.commit([create(buildNode('n1', 'host')), create(buildNode('n2', 'host'))])
      assert.equal(store.view.byName('node', 'HOST').length, 2, 'host names are not unique')
    })

    on('a name is free once its owner is gone, and two may swap', async (store) => {
      await store.commit([
        create(buildConfig('a', { name: 'x' })),
        create(buildConfig('b', { name: 'y' })),
      ])
      const [a, b] = [store.view.get('config', 'a'), store.view.get('config', 'b')]
      assert.ok(a && b)
      await store.commit([update({ ...a, name: 'y' }), update({ ...b, name: 'x' })])
      const swapped = store.view.byName('config', 'x')[0]
      assert.equal(swapped?.id, 'b')
      const outcomes = await Promise.allSettled([
        store.commit([remove(swapped)]),
        store.commit([create(buildConfig('c', { name: 'x' }))]),
      ])
      assert.deepEqual(outcomes.map(codeOf), ['done', 'done'])
      assert.deepEqual(
        store.view.byName('config', 'x').map((config) => config.id),
        ['c'],
      )
    })

    on('listeners hear every commit once, in order, and see its state', async (store) => {
      const heard: Commit[] = []
      const stop = store.subscribe((commit) => {
        assert.equal(store.view.revision, commit.revision)
        for (const { kind, id, after } of commit.changes) {
          assert.equal(store.view.get(kind, id), after)
        }
        heard.push(commit)
      })
      const commits = await Promise.all(
        Array.from({ length: 100 }, (_, i) => store.commit([create(buildConfig(`c${i}`))])),
      )
      assert.deepEqual(heard, commits)
      assert.deepEqual(
        heard.map((commit) => commit.revision),
        heard.map((commit) => commit.revision).sort((a, b) => a - b),
        'never back',
      )
      assert.deepEqual(
        [...store.view.list('config')].map((config) => config.id),
        Array.from({ length: 100 }, (_, i) => `c${i}`),
        'created in the order in which they were asked for',
      )
      stop()
      await store.commit([create(buildConfig('last'))])
      assert.equal(heard.length, 100)
    })

    on(
      'a commit is in the view when it resolves, and not before it is asked for',
      async (store) => {
        const committed = store.commit([create(buildConfig('a'))])
        assert.equal(store.view.get('config', 'a'), undefined, 'not before it is durable')
        await committed
        assert.ok(store.view.get('config', 'a'))
      },
    )

    on('a listener may commit', async (store) => {
      const inner: Promise<Commit>[] = []
      store.subscribe(() => {
        const { length } = inner
        if (length < 3) inner.push(store.commit([create(buildConfig(`inner${length}`))]))
      })
      await Promise.all([
        store.commit([create(buildConfig('a'))]),
        store.commit([create(buildConfig('b'))]),
      ])
      while (inner.length < 3) await inner.at(-1)
      await Promise.all(inner)
      assert.equal(store.view.count('config'), 5)
    })

    on('a listener that commits is checked against what is still in flight', async (store) => {
      await store.commit([create(buildConfig('a', { name: 'x' }))])
      const a = store.view.get('config', 'a')
      assert.ok(a)
      let inner: Promise<string> | undefined
      store.subscribe(({ changes }) => {
        if (changes[0]?.id !== 'a') return
        assert.deepEqual(store.view.byName('config', 'x'), [])
        inner = store.commit([create(buildConfig('c', { name: 'x' }))]).then(
          () => 'done',
          (error: unknown) => (error instanceof UserError ? error.code : String(error)),
        )
      })
      await Promise.all([
        store.commit([update({ ...a, name: 'y' })]),
        store.commit([create(buildConfig('b', { name: 'x' }))]),
      ])
      assert.equal(await inner, 'conflict')
      assert.equal(store.view.byName('config', 'x').length, 1)
    })

    on(
      'of two commits that were checked on the same view, the second comes too late',
      async (store) => {
        await store.commit([create(buildConfig('a'))])
        const checkedAt = store.view.revision
        const outcomes = await Promise.allSettled(
          ['b', 'c'].map((id) => store.commit([create(buildConfig(id))], { checkedAt })),
        )
        assert.deepEqual(
          outcomes.map((outcome) => outcome.status === 'rejected' && outcome.reason.code),
          [false, 'outOfSequence'],
        )
        await assert.rejects(store.commit([create(buildConfig('d'))], { checkedAt }), {
          code: 'outOfSequence',
        })
        // What was not checked so holds nobody up.
        await store.commit([create(buildConfig('e'))])
        await store.commit([create(buildConfig('f'))], { checkedAt: store.view.revision })
        assert.deepEqual([...store.view.list('config')].map(({ id }) => id).sort(), [
          ...['a', 'b', 'e', 'f'],
        ])
      },
    )

    on('only the leader of the current epoch may write with a fence', async (store, place) => {
      assert.equal(store.epoch, 0)
      assert.equal(await store.advanceEpoch(), 1)
      await store.commit([create(buildConfig('a'))], { fence: 1 })
      const advanced = store.advanceEpoch()
      await assert.rejects(store.commit([create(buildConfig('b'))], { fence: 1 }), {
        code: 'outOfSequence',
      })
      assert.equal(await advanced, 2)
      await assert.rejects(store.commit([], { fence: 3 }), { code: 'outOfSequence' })
      await store.commit([create(buildConfig('c'))], { fence: 2 })
      await store.commit([create(buildConfig('d'))])
      assert.equal(store.view.get('config', 'b'), undefined)
      await store.close()
      if (!options.durable) return
      const again = await place.open()
      assert.equal(again.epoch, 2)
      assert.equal(await again.advanceEpoch(), 3)
      await again.close()
    })

    on('the indexes follow every change', async (store) => {
      await store.commit([
        create(buildTask('t1', { workload: 'w1' })),
        create(buildTask('t2', { workload: 'w1', node: 'n1', networks: ['x', 'y', 'x'] })),
        create(buildTask('t3', { workload: 'w2', node: 'n1' })),
        create(buildEndpoint('e1', { workloads: ['w1', 'w2'], networks: ['x'], vips: ['z'] })),
        create(buildRevision('r1', 'w1', 1)),
      ])
      const ids = (objects: Iterable<AnyObject>): string => [...objects].map((o) => o.id).join(' ')
      const { view } = store
      const tasksBefore = view.tasksOfWorkload(idFrom('w1'))
      assert.equal(
        view.tasksOfWorkload(idFrom('w1')),
        tasksBefore,
        'the same list until it changes',
      )
      assert.equal(ids(tasksBefore), 't1 t2')
      assert.equal(ids(view.tasksOfNode(idFrom('n1'))), 't2 t3')
      assert.equal(ids(view.tasksOnNetwork(idFrom('x'))), 't2')
      assert.equal(ids(view.endpointsOfWorkload(idFrom('w2'))), 'e1')
      assert.equal(ids(view.endpointsOnNetwork(idFrom('x'))), 'e1')
      assert.equal(ids(view.endpointsOnNetwork(idFrom('z'))), 'e1')
      assert.equal(ids(view.revisionsOfWorkload(idFrom('w1'))), 'r1')
      const t1 = view.get('task', 't1')
      const t2 = view.get('task', 't2')
      assert.ok(t1 && t2)
      await store.commit([update({ ...t1, nodeId: idFrom('n1') }), remove(t2)])
      assert.equal(ids(view.tasksOfNode(idFrom('n1'))), 't1 t3', 'in order of creation')
      assert.equal(ids(view.tasksOfWorkload(idFrom('w1'))), 't1')
      assert.equal(ids(view.tasksOnNetwork(idFrom('y'))), '')
      assert.equal(ids(tasksBefore), 't1 t2', 'a list read before stays as it was')
    })

    on('many writers at once lose nothing', async (store) => {
      await Promise.all(
        Array.from({ length: 20 }, async (_, writer) => {
          for (let i = 0; i < 10; i++) await store.commit([create(buildConfig(`${writer}-${i}`))])
        }),
      )
      assert.equal(store.view.count('config'), 200)
    })

    on('close waits for what was committed, and then refuses', async (store, place) => {
      const commits = Array.from({ length: 50 }, (_, i) =>
        store.commit([create(buildConfig(`c${i}`))]),
      )
      await store.close()
      const outcomes = await Promise.allSettled(commits)
      assert.ok(outcomes.every((outcome) => outcome.status === 'fulfilled'))
      await assert.rejects(store.commit([]), { code: 'unavailable' })
      await assert.rejects(store.advanceEpoch(), { code: 'unavailable' })
      await store.close()
      if (!options.durable) return
      const again = await place.open()
      assert.equal(again.view.count('config'), 50)
      await again.close()
    })

    // A store that keeps nothing once closed promises nothing here.
    if (options.durable) {
      test('what is reopened equals what was closed', async () => {
        const place = await newPlace()
        const store = await place.open()
        await store.commit([
          create(buildTask('t1', { networks: ['x'] })),
          create(buildConfig('a', { data: 'ü\u0000\ud83d\ude00"\\' })),
          create(buildConfig('b')),
        ])
        const task = store.view.get('task', 't1')
        const a = store.view.get('config', 'b')
        assert.ok(task && a)
        await store.commit([update({ ...task, nodeId: idFrom('n1') }), remove(a)])
        await store.commit([create(buildConfig('b'))])
        const before = picture(store.view)
        await store.close()
        const again = await place.open()
        assert.deepEqual(picture(again.view), before)
        const { revision } = again.view
        const commit = await again.commit([create(buildConfig('c'))])
        assert.ok(commit.revision > revision)
        await again.close()
        await place.remove()
      })
    }

    test('random histories end as a naive model says', async () => {
      await fc.assert(
        fc.asyncProperty(anyHistory, async (history) => {
          const place = await newPlace()
          let store = await place.open()
          try {
            const model = new NaiveStore(store.view.revision)
            for (const { turn, reopen } of history) {
              if (reopen && options.durable) {
                await store.close()
                store = await place.open()
              }
              const attempts = turn.map((steps) => {
                const changes = steps.map((step) => changeOf(step, store.view))
                return {
                  wanted: model.commit(changes),
                  got: store.commit(changes).then(
                    () => 'done',
                    (error: unknown) => (error instanceof UserError ? error.code : String(error)),
                  ),
                }
              })
              for (const { wanted, got } of attempts) assert.equal(await got, wanted)
              model.adoptVersions(store.view)
              assert.deepEqual(picture(store.view), model.picture())
              checkIndexes(store.view)
            }
          } finally {
            await store.close()
            await place.remove()
          }
        }),
        { numRuns: options.histories ?? 100 },
      )
    })
  })
}

function codeOf(outcome: PromiseSettledResult<unknown>): string {
  if (outcome.status === 'fulfilled') return 'done'
  return outcome.reason instanceof UserError ? outcome.reason.code : String(outcome.reason)
}

/** All that a view holds, but for the times. */
export function picture(view: View): unknown {
  return {
    revision: view.revision,
    objects: kinds.map((kind) => [...view.list(kind)].map(withoutTimes)),
  }
}

function withoutTimes(object: AnyObject): unknown {
  return { ...object, createdAtMs: 0, updatedAtMs: 0 }
}

/** Compares every index with a search through everything. */
function checkIndexes(view: View): void {
  const tasks = [...view.list('task')]
  const endpoints = [...view.list('endpoint')]
  for (const id of pool) {
    const [workloadId, nodeId, networkId] = [
      idFrom<'workload'>(id),
      idFrom<'node'>(id),
      idFrom<'network'>(id),
    ]
    assert.deepEqual(
      view.tasksOfWorkload(workloadId),
      tasks.filter((task) => task.workloadId === workloadId),
    )
    assert.deepEqual(
      view.tasksOfNode(nodeId),
      tasks.filter((task) => task.nodeId === nodeId),
    )
    assert.deepEqual(
      view.tasksOnNetwork(networkId),
      tasks.filter((task) => task.addresses.some((address) => address.networkId === networkId)),
    )
    assert.deepEqual(
      view.endpointsOfWorkload(workloadId),
      endpoints.filter(({ spec }) => spec.backends.some((one) => one.workloadId === workloadId)),
    )
    assert.deepEqual(
      view.endpointsOnNetwork(networkId),
      endpoints.filter(({ spec, status }) =>
        [...spec.networks, ...status.vips].some((one) => one.networkId === networkId),
      ),
    )
    assert.deepEqual(
      view.byName('endpoint', id),
      endpoints.filter((endpoint) => endpoint.name.toLowerCase() === id.toLowerCase()),
    )
  }
  assert.equal(view.count('task'), tasks.length)
}

const pool = ['a', 'b', 'B', 'c']
const anyOf = fc.constantFrom(...pool)
const someOf = fc.subarray(pool)
/** One step of a history: mostly one that fits the view it is taken in; an `odd` one does not ask. */
const anyStep = fc.record({
  type: fc.constantFrom('put', 'update', 'delete'),
  kind: fc.constantFrom('task', 'endpoint'),
  id: anyOf,
  odd: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  name: anyOf,
  workload: anyOf,
  node: fc.option(anyOf, { nil: undefined }),
  networks: someOf,
  vips: someOf,
})
type Step = typeof anyStep extends fc.Arbitrary<infer T> ? T : never
/** Turns follow one another; the commits of one turn are all under way at once. */
const anyHistory = fc.array(
  fc.record({
    turn: fc.array(fc.array(anyStep, { maxLength: 3 }), { maxLength: 4 }),
    reopen: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  }),
  { maxLength: 12 },
)

function changeOf(step: Step, view: View): Change {
  const object =
    step.kind === 'task'
      ? buildTask(step.id, {
          workload: step.workload,
          networks: step.networks,
          ...(step.node !== undefined && { node: step.node }),
        })
      : buildEndpoint(step.id, {
          name: step.name,
          workloads: [step.workload],
          networks: step.networks,
          vips: step.vips,
        })
  const known = view.get(object.kind, object.id)
  if (step.odd) {
    if (step.type === 'put') return create(object)
    return step.type === 'update' ? update(object) : remove(object)
  }
  if (known === undefined) return create(object)
  const { version } = known
  return step.type === 'delete' ? remove(known) : update({ ...object, version })
}

/** Stands for the revision of a commit of this turn: a number that no change can name. */
const ofThisTurn = -1

/**
 * The contract's words as plain loops over a list: one commit after the other, nothing in flight. Which revisions the
 * commits of a turn get is the store's choice, as long as they are new.
 */
class NaiveStore {
  #revision: number
  #objects: AnyObject[] = []
  #isChanged = false

  constructor(revision: number) {
    this.#revision = revision
  }

  /** Ends a turn: checks the versions that the store has given, and takes them over. */
  adoptVersions(view: View): void {
    const known = this.#revision
    assert.equal(
      view.revision > known,
      this.#isChanged,
      'the revision grows with commits, and only then',
    )
    this.#objects = this.#objects.map((object) => {
      const stored = view.get(object.kind, object.id)
      assert.ok(stored)
      const check = (wanted: number, got: number, max: number): void => {
        if (wanted !== ofThisTurn) assert.equal(got, wanted)
        else assert.ok(got > known && got <= max, `${got} is a new revision`)
      }
      check(object.version, stored.version, view.revision)
      check(object.specVersion, stored.specVersion, stored.version)
      return { ...object, version: stored.version, specVersion: stored.specVersion }
    })
    this.#revision = view.revision
    this.#isChanged = false
  }

  commit(changes: readonly Change[]): string {
    let objects = [...this.#objects]
    const touched = new Set<string>()
    for (const change of changes) {
      const { kind, id } = change.type === 'delete' ? change : change.object
      if (touched.has(`${kind}/${id}`)) return 'invalidInput'
      touched.add(`${kind}/${id}`)
      const before = objects.find((object) => object.kind === kind && object.id === id)
      if (change.type === 'create') {
        if (before) return 'conflict'
        objects.push({ ...change.object, version: ofThisTurn, specVersion: ofThisTurn })
        continue
      }
      if (!before) return 'notFound'
      const version = change.type === 'delete' ? change.version : change.object.version
      if (before.version !== version) return 'outOfSequence'
      objects =
        change.type === 'delete'
          ? objects.filter((object) => object !== before)
          : objects.map((object) =>
              object === before
                ? { ...change.object, version: ofThisTurn, specVersion: before.specVersion }
                : object,
            )
    }
    const names = objects
      .filter((object) => uniquelyNamedKinds.has(object.kind))
      .map(({ kind, namespace, name }) => `${kind} ${namespace} ${name.toLowerCase()}`)
    if (new Set(names).size < names.length) return 'conflict'
    this.#objects = objects
    this.#isChanged = true
    return 'done'
  }

  picture(): unknown {
    return {
      revision: this.#revision,
      objects: kinds.map((kind) =>
        this.#objects.filter((object) => object.kind === kind).map(withoutTimes),
      ),
    }
  }
}
