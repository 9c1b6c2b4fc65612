import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  type Clock,
  type Random,
  type SteadyClock,
  silentLog,
  steadyClock,
  UserError,
} from '../../base/index.ts'
import { VirtualClock } from '../../sim/virtual-clock.ts'
import { picture } from '../contract.ts'
import { openMemoryStore } from '../memory-store.ts'
import { objectKeyOf } from '../sealed-values.ts'
import type { Change, Commit } from '../store.ts'
import { buildConfig, buildEndpoint, buildTask, buildValueKey } from '../test-objects.ts'
import { plainValues, sealedValues, type ValueCodec } from '../value-codec.ts'
import { openElection } from './election.ts'
import { type EtcdStore, OutcomeUnknownError, openEtcdStore } from './etcd-store.ts'
import { migrateToEtcd } from './migrate.ts'
import { type MemberState, type SimulatedClient, SimulatedEtcd } from './simulated-etcd.ts'

const values = sealedValues([buildValueKey()])

const create = (id: string, data = ''): Change => ({
  type: 'create',
  object: buildConfig(id, { data }),
})

/** The same numbers for the same seed. */
function seeded(seed: number): Random {
  let state = seed * 2_654_435_761 + 1
  return {
    below(limit) {
      state = (Math.imul(state ^ (state >>> 15), 2_246_822_519) + 0x9e3779b9) | 0
      const mixed = Math.imul(state ^ (state >>> 13), 3_266_489_917)
      return limit <= 1 ? 0 : ((mixed ^ (mixed >>> 16)) >>> 0) % limit
    },
  }
}

/** Managers on one simulated etcd: each speaks to its own member only, as real ones do. */
class Managers {
  readonly clock = new VirtualClock()
  readonly random: Random
  readonly etcd: SimulatedEtcd
  readonly clients: SimulatedClient[] = []
  readonly stores: EtcdStore[] = []

  private constructor(seed: number, delayMsMax: number) {
    this.random = seeded(seed)
    this.etcd = new SimulatedEtcd({
      clock: this.clock,
      random: this.random,
      members: 3,
      delayMsMax,
    })
  }

  static async open(count: number, options: { seed?: number; delayMsMax?: number } = {}) {
    const managers = new Managers(options.seed ?? 1, options.delayMsMax ?? 2)
    for (let i = 0; i < count; i++) {
      const client = managers.etcd.client({ member: i, fixed: true })
      managers.clients.push(client)
      managers.stores.push(await managers.during(managers.store(client)))
    }
    return managers
  }

  store(
    client: SimulatedClient,
    { clock = this.clock, codec = values }: { clock?: Clock; codec?: ValueCodec } = {},
  ): Promise<EtcdStore> {
    const { random } = this
    return openEtcdStore({ client, values: codec, clock, random, log: silentLog })
  }

  /** Lets time pass until something is done. */
  async during<T>(work: Promise<T>): Promise<T> {
    let isDone = false
    const done = work.finally(() => (isDone = true))
    done.catch(() => {})
    for (let i = 0; i < 4_000 && !isDone; i++) await this.clock.advance(10)
    assert.ok(isDone, 'it ends within 40 s')
    return done
  }

  at(index: number): EtcdStore {
    const store = this.stores[index]
    assert.ok(store)
    return store
  }

  client(index: number): SimulatedClient {
    const client = this.clients[index]
    assert.ok(client)
    return client
  }

  async close(): Promise<void> {
    for (const store of this.stores) await this.during(store.close())
    this.etcd.close()
    await this.clock.advance(100)
  }
}

function on(title: string, count: number, body: (managers: Managers) => Promise<void>) {
  test(title, async () => {
    const managers = await Managers.open(count)
    try {
      await body(managers)
    } finally {
      await managers.close()
    }
  })
}

describe('the store on etcd, with several managers', () => {
  on('what one manager commits, the others see, alike', 3, async (managers) => {
    const heard: Commit[] = []
    managers.at(1).subscribe((commit) => heard.push(commit))
    const commit = await managers.during(
      managers.at(0).commit([create('b'), create('a'), { type: 'create', object: buildTask('t') }]),
    )
    await managers.during(managers.at(1).barrier())
    await managers.during(managers.at(2).barrier())
    assert.deepEqual(heard, [commit])
    assert.deepEqual(picture(managers.at(1).view), picture(managers.at(0).view))
    assert.deepEqual(picture(managers.at(2).view), picture(managers.at(0).view))
  })

  on('what a manager with a fast clock did has happened by every clock', 1, async (managers) => {
    const { clock } = managers
    const wrongBy = (ms: number): Clock & SteadyClock => ({
      ...steadyClock({ wallMs: () => clock.nowMs() + ms, elapsedMs: () => clock.nowMs() }),
      sleep: (ms, signal) => clock.sleep(ms, signal),
    })
    const open = async (clock: Clock) => {
      const store = await managers.during(managers.store(managers.etcd.client(), { clock }))
      managers.stores.push(store)
      return store
    }
    const follower = wrongBy(0)
    await open(follower)
    const fast = await open(wrongBy(3_600_000))
    const { atMs } = await managers.during(fast.commit([create('a')]))
    await managers.during(managers.at(1).barrier())
    assert.ok(follower.nowMs() >= atMs, 'seen while it followed')
    const late = wrongBy(0)
    await open(late)
    assert.ok(late.nowMs() >= atMs, 'read when it was opened')
  })

  on('of two managers that change one object, or take one name, one wins', 2, async (managers) => {
    await managers.during(managers.at(0).commit([create('a')]))
    await managers.during(managers.at(1).barrier())
    const a = managers.at(0).view.get('config', 'a')
    assert.ok(a)
    for (const changes of [
      ['first', 'second'].map((data): Change => ({ type: 'update', object: { ...a, data } })),
      ['x', 'y'].map(
        (id): Change => ({ type: 'create', object: buildConfig(id, { name: 'web' }) }),
      ),
    ]) {
      const outcomes = await managers.during(
        Promise.allSettled(changes.map((change, i) => managers.at(i).commit([change]))),
      )
      assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
    }
    await managers.during(Promise.all([managers.at(0).barrier(), managers.at(1).barrier()]))
    assert.deepEqual(picture(managers.at(1).view), picture(managers.at(0).view))
  })

  on('after the next leader began, the last one can write nothing more', 2, async (managers) => {
    const [old, next] = [managers.at(0), managers.at(1)]
    assert.equal(await managers.during(old.advanceEpoch()), 1)
    await managers.during(old.commit([create('a')], { fence: 1 }))
    await managers.during(next.barrier())
    // The old one does not hear of it before it writes.
    managers.client(0).cut = true
    await managers.during(next.advanceEpoch())
    const late = assert.rejects(old.commit([create('b')], { fence: 1 }), { code: 'outOfSequence' })
    managers.client(0).cut = false
    await managers.during(late)
    await managers.during(next.barrier())
    assert.equal(next.view.get('config', 'b'), undefined)
    assert.equal(old.epoch, 2)
  })

  on('a commit whose answer is lost is done once, and said to be done', 2, async (managers) => {
    managers.client(0).loseReplies(3)
    await managers.during(managers.at(0).commit([create('a')]))
    managers.client(0).loseReplies(2)
    await managers.during(managers.at(0).commit([]))
    const before = managers.at(0).view.revision
    await managers.during(managers.at(1).barrier())
    assert.equal(managers.at(1).view.revision, before)
    assert.equal(managers.at(1).view.count('config'), 1)
  })

  on(
    'without a majority nothing is said to be stored, and soon it is said at once',
    3,
    async (managers) => {
      const store = managers.at(0)
      managers.etcd.setMember(1, 'down')
      managers.etcd.setMember(2, 'down')
      await assert.rejects(managers.during(store.commit([create('a')])), { code: 'unavailable' })
      assert.ok(store.quorumLostAtMs)
      const nowMs = managers.clock.nowMs()
      await assert.rejects(store.commit([create('b')]), (error) => {
        assert.ok(error instanceof UserError)
        assert.equal(error.code, 'unavailable')
        assert.match(error.message, /no majority of the managers/)
        assert.match(error.next ?? '', /force-new-cluster/)
        return true
      })
      await assert.rejects(managers.during(store.barrier()), { code: 'unavailable' })
      assert.ok(managers.clock.nowMs() - nowMs < 5_000)
      managers.etcd.setMember(1, 'up')
      await managers.clock.advance(5_000)
      assert.equal(store.quorumLostAtMs, undefined)
      await managers.during(store.commit([create('c')]))
      assert.equal(store.view.get('config', 'b'), undefined)
    },
  )

  on(
    'a manager that missed what is compacted reads all anew, and tells the difference',
    2,
    async (managers) => {
      const [writer, reader] = [managers.at(0), managers.at(1)]
      await managers.during(
        writer.commit([create('kept'), create('changed'), create('gone'), create('again')]),
      )
      await managers.during(reader.barrier())
      const heard: Commit[] = []
      reader.subscribe((commit) => heard.push(commit))
      managers.client(1).cut = true
      await managers.clock.advance(5_000)
      const { view } = writer
      const [changed, gone, again] = ['changed', 'gone', 'again'].map((id) =>
        view.get('config', id),
      )
      assert.ok(changed && gone && again)
      await managers.during(
        writer.commit([
          { type: 'update', object: { ...changed, data: 'new' } },
          { type: 'delete', kind: 'config', id: 'gone', version: gone.version },
          { type: 'delete', kind: 'config', id: 'again', version: again.version },
        ]),
      )
      await managers.during(writer.commit([create('made'), create('again')]))
      await managers.during(
        managers.client(0).compact((await managers.during(managers.client(0).status())).revision),
      )
      managers.client(1).cut = false
      await managers.clock.advance(3_000)
      await managers.during(reader.barrier())
      assert.deepEqual(picture(reader.view), picture(writer.view))
      assert.equal(heard.length, 1)
      assert.deepEqual(
        heard[0]?.changes.map(({ id, before, after }) => [
          id,
          before !== undefined,
          after !== undefined,
        ]),
        [
          ['gone', true, false],
          ['changed', true, true],
          ['made', false, true],
          ['again', true, true],
        ],
      )
    },
  )

  on('old history goes, now and then, while there is a leader', 1, async (managers) => {
    const [store, stop] = [managers.at(0), new AbortController()]
    const keeping = store.keepCompacted(stop.signal)
    for (let i = 0; i < 2_050; i++) await managers.during(store.commit([create(`c${i}`)]))
    const { revision } = await managers.during(managers.client(0).status())
    await managers.clock.advance(61_000)
    const key = '/skep/meta'
    const old = managers.client(0).range({ key, revision: revision - 2_040 })
    await assert.rejects(managers.during(old), { reason: 'compacted' })
    await managers.during(managers.client(0).range({ key, revision: revision - 1_900 }))
    stop.abort()
    await managers.during(keeping)
  })

  on('what arrives late, after it was asked for again, is not done twice', 2, async (managers) => {
    const [store, other] = [managers.at(0), managers.at(1)]
    const remove = async (by: EtcdStore): Promise<void> => {
      await managers.during(by.barrier())
      const a = by.view.get('config', 'a')
      assert.ok(a)
      const { id, kind, version } = a
      await managers.during(by.commit([{ type: 'delete', id, kind, version }]))
    }
    await managers.during(store.commit([]))
    managers.client(0).holdWrites(1)
    await managers.during(store.commit([create('a')]))
    await remove(store)
    managers.client(0).releaseWrites()
    await managers.during(store.barrier())
    assert.equal(store.view.get('config', 'a'), undefined)

    // Nor when it was refused meanwhile, and would fit again.
    managers.client(0).holdWrites(1)
    const refused = assert.rejects(store.commit([create('a')]), { code: 'conflict' })
    await managers.clock.advance(10)
    await managers.during(other.commit([create('a')]))
    await managers.during(refused)
    await remove(other)
    managers.client(0).releaseWrites()
    await managers.during(store.barrier())
    assert.equal(store.view.get('config', 'a'), undefined)
  })

  on('a store that closes lets its commits end', 1, async (managers) => {
    const commits = Array.from({ length: 30 }, (_, i) => managers.at(0).commit([create(`c${i}`)]))
    await managers.during(managers.at(0).close())
    await Promise.all(commits)
    await assert.rejects(managers.at(0).barrier(), { code: 'unavailable' })
  })

  for (let seed = 1; seed <= 12; seed++) {
    test(`nothing acknowledged is lost, whatever fails (seed ${seed})`, () => checkHistory(seed))
  }
})

/** Managers write under random faults; then all is healed, and what they were told must be what is there. */
async function checkHistory(seed: number): Promise<void> {
  const managers = await Managers.open(3, { seed, delayMsMax: 30 })
  const { clock, random, etcd } = managers
  const outcomeById = new Map<string, 'done' | 'failed' | 'unknown'>()
  let added = 0
  let maybeAdded = 0
  await managers.during(managers.at(0).commit([create('counter', '0')]))
  const revisions = managers.stores.map((store) => {
    const heard: number[] = []
    store.subscribe(({ revision }) => heard.push(revision))
    return heard
  })
  let isOver = false
  const outcomeOf = async (commit: Promise<unknown>): Promise<'done' | 'failed' | 'unknown'> => {
    try {
      await commit
      return 'done'
    } catch (error) {
      assert.ok(error instanceof UserError, String(error))
      return error.cause instanceof OutcomeUnknownError ? 'unknown' : 'failed'
    }
  }
  const writers = managers.stores.map(async (store, writer) => {
    for (let i = 0; !isOver; i++) {
      const id = `${writer}-${i}`
      const counter = store.view.get('config', 'counter')
      const changes = [create(id)]
      // One that also counts may lose the race for the counter; then it is not done at all.
      const isCounting = counter !== undefined && random.below(2) === 0
      if (isCounting) {
        changes.push({
          type: 'update',
          object: { ...counter, data: String(Number(counter.data) + 1) },
        })
      }
      const outcome = await outcomeOf(store.commit(changes))
      outcomeById.set(id, outcome)
      if (isCounting && outcome === 'done') added += 1
      if (isCounting && outcome === 'unknown') maybeAdded += 1
      await clock.sleep(random.below(200))
    }
  })
  const states: readonly MemberState[] = ['down', 'paused', 'cut', 'up', 'up', 'up']
  for (let step = 0; step < 60; step++) {
    const index = random.below(3)
    const client = managers.client(index)
    switch (random.below(6)) {
      case 0:
        client.cut = !client.cut
        break
      case 1:
        client.loseReplies(1 + random.below(3))
        break
      case 2:
        void etcd.loseLeaderFor(random.below(3_000))
        break
      case 3: {
        const { revision } = etcd.txn({ when: [], apply: [] })
        etcd.compact(revision - random.below(5))
        break
      }
      default:
        etcd.setMember(index, states[random.below(states.length)] ?? 'up')
    }
    await clock.advance(random.below(2_000))
  }
  isOver = true
  for (let i = 0; i < 3; i++) {
    etcd.setMember(i, 'up')
    managers.client(i).cut = false
    managers.client(i).loseReplies(0)
  }
  await managers.during(Promise.all(writers))
  await clock.advance(10_000)
  await managers.during(Promise.all(managers.stores.map((store) => store.barrier())))
  const [first, ...others] = managers.stores.map((store) => picture(store.view))
  for (const other of others) assert.deepEqual(other, first, 'all managers see the same')
  const { view } = managers.at(0)
  for (const [id, outcome] of outcomeById) {
    if (outcome === 'unknown') continue
    assert.equal(view.get('config', id) !== undefined, outcome === 'done', `${id} is ${outcome}`)
  }
  const counted = Number(view.get('config', 'counter')?.data)
  assert.ok(counted >= added && counted <= added + maybeAdded, `${counted} of ${added}`)
  for (const heard of revisions) {
    assert.deepEqual(
      heard,
      [...heard].sort((a, b) => a - b),
      'revisions never go back',
    )
  }
  assert.ok([...outcomeById.values()].filter((outcome) => outcome === 'done').length > 10)
  const fresh = await managers.during(managers.store(etcd.client()))
  assert.deepEqual(picture(fresh.view), first, 'what was followed equals what is read')
  await managers.during(fresh.close())
  await managers.close()
}

describe('the election', () => {
  function elections(managers: Managers) {
    return managers.clients.map((client, i) =>
      openElection({
        client,
        clock: managers.clock,
        log: silentLog,
        candidate: { id: `n${i}`, address: `10.0.0.${i}:2377` },
      }),
    )
  }

  on(
    'one leads at a time, each with an epoch of its own, and all know who',
    3,
    async (managers) => {
      const [a, b, c] = elections(managers)
      assert.ok(a && b && c)
      const never = new AbortController().signal
      const first = await managers.during(a.campaign(never))
      assert.equal(first?.epoch, 1)
      const waiting = b.campaign(never)
      await managers.clock.advance(10_000)
      assert.equal(first.lost.aborted, false, 'it keeps its lease')
      assert.deepEqual(c.leader, { id: 'n0', address: '10.0.0.0:2377', epoch: 1 })
      const startMs = managers.clock.nowMs()
      await managers.during(first.resign())
      const second = await managers.during(waiting)
      assert.equal(second?.epoch, 2)
      assert.ok(managers.clock.nowMs() - startMs < 500, 'who resigns is replaced at once')
      await managers.clock.advance(100)
      assert.equal(c.leader?.id, 'n1')
      assert.equal(managers.at(2).epoch, 2, 'the store follows the epoch')
      await managers.during(Promise.all([a, b, c].map((election) => election.close())))
      assert.equal(second.lost.aborted, true)
    },
  )

  on(
    'a leader that is cut off steps down by itself, and is replaced within 3 s',
    3,
    async (managers) => {
      const [a, b, c] = elections(managers)
      assert.ok(a && b && c)
      const never = new AbortController().signal
      const first = await managers.during(a.campaign(never))
      assert.ok(first)
      await managers.during(managers.at(0).commit([create('a')], { fence: first.epoch }))
      const waiting = b.campaign(never)
      await managers.clock.advance(1_000)
      managers.client(0).cut = true
      const startMs = managers.clock.nowMs()
      const second = await managers.during(waiting)
      assert.ok(managers.clock.nowMs() - startMs <= 3_000)
      assert.equal(first.lost.aborted, true, 'before the other one leads')
      assert.equal(second?.epoch, first.epoch + 1)
      managers.client(0).cut = false
      await assert.rejects(
        managers.during(managers.at(0).commit([create('b')], { fence: first.epoch })),
        { code: 'outOfSequence' },
      )
      await managers.during(Promise.all([a, b, c].map((election) => election.close())))
    },
  )

  on('a leader that is known to have ended need not be waited for', 3, async (managers) => {
    const [a, b] = elections(managers)
    assert.ok(a && b)
    const never = new AbortController().signal
    const first = await managers.during(a.campaign(never))
    assert.ok(first)
    const waiting = b.campaign(never)
    await managers.clock.advance(1_000)
    await managers.during(b.depose(first.epoch - 1, never))
    assert.equal(first.lost.aborted, false, 'one of before is no business of this one')
    const startMs = managers.clock.nowMs()
    await managers.during(b.depose(first.epoch, never))
    const second = await managers.during(waiting)
    assert.ok(managers.clock.nowMs() - startMs < 500, 'its lease has not ended yet')
    assert.equal(second?.epoch, first.epoch + 1)
    await assert.rejects(
      managers.during(managers.at(0).commit([create('late')], { fence: first.epoch })),
      { code: 'outOfSequence' },
    )
    await managers.during(Promise.all([a.close(), b.close()]))
  })

  on('a leader that starts again need not wait for its former self', 1, async (managers) => {
    const never = new AbortController().signal
    const [former] = elections(managers)
    const first = await managers.during(former?.campaign(never) ?? Promise.resolve(undefined))
    const [again] = elections(managers)
    const startMs = managers.clock.nowMs()
    const second = await managers.during(again?.campaign(never) ?? Promise.resolve(undefined))
    assert.ok(managers.clock.nowMs() - startMs < 500)
    assert.equal(second?.epoch, 2)
    await managers.clock.advance(100)
    assert.equal(first?.lost.aborted, true)
    assert.equal(second.lost.aborted, false)
    await managers.during(Promise.all([former?.close(), again?.close()]))
  })
})

describe('a migration into etcd', () => {
  on('keeps objects, versions, order, names and the epoch', 0, async (managers) => {
    const { clock, random, etcd } = managers
    const from = await openMemoryStore({ clock })
    await from.advanceEpoch()
    for (let i = 0; i < 1_200; i++) {
      await from.commit([create(`c${1_200 - i}`, 'x'.repeat(2_000))])
    }
    const c7 = from.view.get('config', 'c7')
    assert.ok(c7)
    await from.commit([
      { type: 'update', object: c7, specChanged: true },
      { type: 'create', object: buildEndpoint('e', { name: 'web', vips: ['n'] }) },
    ])
    const client = etcd.client()
    client.loseReplies(2)
    const options = { from, client, values, clock, random, log: silentLog }
    const { objects } = await managers.during(migrateToEtcd(options))
    assert.equal(objects, 1_201)
    const store = await managers.during(managers.store(client))
    const kept = (view: typeof from.view): unknown => Reflect.get(Object(picture(view)), 'objects')
    assert.deepEqual(kept(store.view), kept(from.view))
    assert.equal(store.epoch, 1)
    assert.ok(store.view.revision > from.view.revision, 'revisions go on')
    await assert.rejects(
      managers.during(
        store.commit([{ type: 'create', object: buildEndpoint('f', { name: 'WEB' }) }]),
      ),
      { code: 'conflict' },
    )
    const known = store.view.get('config', 'c7')
    assert.ok(known)
    await managers.during(store.commit([{ type: 'update', object: known }]))
    const after = store.view.get('config', 'c7')
    assert.ok(after && after.version > store.view.count('config'))
    assert.equal(after.specVersion, known.specVersion)
    await assert.rejects(managers.during(migrateToEtcd(options)), { code: 'conflict' })
    await managers.during(store.close())
    await from.close()
  })
})

describe('what the store keeps in etcd', () => {
  const valuesIn = async (managers: Managers) => {
    const { kvs } = await managers.during(managers.client(0).range({ key: '/', end: '0' }))
    return new Map(kvs.map(({ key, value }) => [key, value]))
  }
  const put = (managers: Managers, key: string, value: string) =>
    managers.during(managers.client(0).txn({ when: [], apply: [{ type: 'put', key, value }] }))
  const other = sealedValues([buildValueKey('fedcba9876543210')])

  on('is sealed, but for ids and names', 2, async (managers) => {
    await managers.during(
      managers
        .at(0)
        .commit([
          create('c', 'needle'),
          { type: 'create', object: buildEndpoint('e', { name: 'web' }) },
        ]),
    )
    const kept = await valuesIn(managers)
    const text = JSON.stringify([...kept])
    assert(!text.includes('needle') && !text.includes('backend'))
    assert.match(kept.get('/skep/object/config/c') ?? '', /^sealed /)
    assert.equal(kept.get('/skep/name/endpoint/default/web'), 'e')
    assert.equal(kept.get('/skep/meta'), '{"layout":2,"offset":0}')
  })

  on('is refused in the place of another, and with another key', 1, async (managers) => {
    await managers.during(managers.at(0).commit([create('a', 'of a'), create('b', 'of b')]))
    await assert.rejects(managers.during(managers.store(managers.client(0), { codec: other })), {
      code: 'internal',
      message: /config\/a is sealed with the data key 0123456789abcdef, which is not at hand/,
      next: /data\.keys/,
    })
    const kept = await valuesIn(managers)
    await put(managers, '/skep/object/config/b', kept.get('/skep/object/config/a') ?? '')
    await assert.rejects(managers.during(managers.store(managers.client(0))), {
      code: 'internal',
      message: /the value of config\/b was changed, or belongs to something else/,
    })
  })

  on(
    'a manager that can not read what another wrote says so, and shows nothing',
    2,
    async (all) => {
      const foreign = await all.during(all.store(all.client(1), { codec: other }))
      await all.during(foreign.commit([create('a', 'x')]))
      await assert.rejects(all.during(all.at(0).barrier()), {
        code: 'internal',
        message: /data key/,
      })
      assert.equal(all.at(0).view.get('config', 'a'), undefined)
      assert.equal(all.at(0).quorumLostAtMs, undefined)
      await all.during(foreign.close())
    },
  )

  on('is sealed at the next start where an earlier version kept it plain', 2, async (managers) => {
    const object = buildTask('t')
    const old = await managers.during(managers.store(managers.client(0), { codec: plainValues }))
    const many = Array.from({ length: 450 }, (_, i) => create(`c${i}`, 'needle'))
    await managers.during(old.commit([...many, { type: 'create', object }]))
    await put(managers, '/skep/meta', '{"layout":1,"offset":0}')
    await managers.during(old.barrier())
    assert(JSON.stringify([...(await valuesIn(managers))]).includes('needle'))
    const versions = (store: EtcdStore) =>
      [...store.view.list('config')].map(({ id, version, specVersion }) => [
        ...[id, version, specVersion],
      ])
    const before = versions(old)
    // Two managers start at the same time, while a third one follows.
    const [one, two] = await managers.during(
      Promise.all([managers.store(managers.client(0)), managers.store(managers.client(1))]),
    )
    const kept = await valuesIn(managers)
    assert(!JSON.stringify([...kept]).includes('needle'))
    assert.equal(kept.get('/skep/meta'), '{"layout":2,"offset":0}')
    const opened = values.decode(
      kept.get('/skep/object/config/c7') ?? '',
      objectKeyOf('config', 'c7'),
    )
    assert(opened.includes('needle'))
    for (const store of [one, two, managers.at(1)]) {
      await managers.during(store.barrier())
      assert.deepEqual(versions(store), before)
    }
    for (const store of [one, two, managers.at(1)]) {
      await managers.during(store.barrier())
      const known = store.view.get('config', 'c7')
      assert.ok(known)
      await managers.during(store.commit([{ type: 'update', object: known }]))
    }
    for (const store of [old, one, two]) await managers.during(store.close())
    const again = await managers.during(managers.store(managers.client(0)))
    assert.equal(again.view.count('config'), 450)
    await managers.during(again.close())
  })
})
