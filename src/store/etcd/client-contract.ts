import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type EtcdClient, prefixEnd, rangeAll, type WatchEvent } from './client.ts'

/** A cluster for clients to talk to. */
export interface EtcdPlace {
  client(): EtcdClient
  stop(): Promise<void>
}

/** What every client of etcd must do, and the etcd behind it. `open` gives a place used by all tests, keys apart. */
export function describeEtcdClientContract(name: string, open: () => Promise<EtcdPlace>): void {
  describe(`${name} keeps the contract of an etcd client`, () => {
    let place: EtcdPlace
    let count = 0
    function on(title: string, body: (client: EtcdClient, prefix: string) => Promise<void>) {
      test(title, async () => {
        const client = place.client()
        count += 1
        try {
          await body(client, `/contract/${count}/`)
        } finally {
          await client.close()
        }
      })
    }
    before(async () => {
      place = await open()
    })
    after(() => place.stop())

    on('a transaction does one branch whole, and answers each operation', async (client, at) => {
      const made = await client.txn({
        when: [{ key: `${at}a`, target: 'createRevision', is: '=', to: 0 }],
        apply: [
          { type: 'put', key: `${at}a`, value: 'ü\0"' },
          { type: 'put', key: `${at}b`, value: '' },
          { type: 'range', key: at, end: prefixEnd(at) },
        ],
      })
      assert.equal(made.succeeded, true)
      const range = made.results[2]
      assert.ok(range?.type === 'range')
      assert.deepEqual(
        range.kvs.map(({ key, value, version }) => [key, value, version]),
        [
          [`${at}a`, 'ü\0"', 1],
          [`${at}b`, '', 1],
        ],
      )
      assert.ok(range.kvs.every((kv) => kv.modRevision === made.revision))
      const again = await client.txn({
        when: [{ key: `${at}a`, target: 'modRevision', is: '=', to: made.revision - 1 }],
        apply: [{ type: 'put', key: `${at}a`, value: 'no' }],
        otherwise: [{ type: 'range', key: `${at}a`, keysOnly: true }],
      })
      assert.equal(again.succeeded, false)
      assert.equal(again.revision, made.revision, 'reading makes no revision')
      const [seen] = again.results
      assert.ok(seen?.type === 'range')
      assert.deepEqual(
        seen.kvs.map(({ key, value, modRevision }) => [key, value, modRevision]),
        [[`${at}a`, '', made.revision]],
      )
      const gone = await client.txn({
        when: [{ key: `${at}a`, target: 'value', is: '=', to: 'ü\0"' }],
        apply: [{ type: 'delete', key: at, end: prefixEnd(at) }],
      })
      assert.deepEqual(gone.results, [{ type: 'delete', deleted: 2 }])
      assert.deepEqual((await client.range({ key: at, end: prefixEnd(at) })).kvs, [])
    })

    on('a transaction may not write a key twice', async (client, at) => {
      const key = `${at}a`
      await assert.rejects(
        client.txn({
          when: [],
          apply: [
            { type: 'put', key, value: '1' },
            { type: 'put', key, value: '2' },
          ],
        }),
        { reason: 'refused' },
      )
      assert.deepEqual((await client.range({ key })).kvs, [])
    })

    on('a large range is read in pages, as of one revision', async (client, at) => {
      const keys = Array.from({ length: 25 }, (_, i) => `${at}${String(i).padStart(2, '0')}`)
      await client.txn({
        when: [],
        apply: keys.map((key) => ({ type: 'put', key, value: 'before' })),
      })
      const first = await client.range({ key: at, end: prefixEnd(at), limit: 10 })
      assert.equal(first.more, true)
      assert.deepEqual(
        first.kvs.map((kv) => kv.key),
        keys.slice(0, 10),
      )
      await client.txn({ when: [], apply: [{ type: 'put', key: `${at}20`, value: 'after' }] })
      const second = await client.range({
        key: `${at}20`,
        end: prefixEnd(at),
        revision: first.revision,
      })
      assert.deepEqual([...new Set(second.kvs.map((kv) => kv.value))], ['before'])
      const all = await rangeAll(client, { key: at, end: prefixEnd(at) }, { pageMax: 7 })
      assert.deepEqual(
        all.kvs.map((kv) => kv.key),
        keys,
      )
    })

    on(
      'a watch tells everything since a revision, transaction by transaction',
      async (client, at) => {
        const { revision } = await client.range({ key: at })
        await client.txn({ when: [], apply: [{ type: 'put', key: `${at}a`, value: '1' }] })
        await client.txn({ when: [], apply: [{ type: 'put', key: '/elsewhere', value: '1' }] })
        const done = new AbortController()
        const events: WatchEvent[] = []
        const standing = Promise.withResolvers<void>()
        const request = { key: at, end: prefixEnd(at), fromRevision: revision + 1 }
        const watching = (async () => {
          for await (const batch of client.watch(request, done.signal)) {
            standing.resolve()
            events.push(...batch.events)
            if (events.some((event) => event.type === 'delete')) done.abort()
          }
        })()
        await standing.promise
        const both = await client.txn({
          when: [],
          apply: [
            { type: 'put', key: `${at}z`, value: '2' },
            { type: 'put', key: `${at}b`, value: '3' },
          ],
        })
        await client.txn({ when: [], apply: [{ type: 'delete', key: `${at}a` }] })
        await watching
        assert.deepEqual(
          events.map((event) =>
            event.type === 'put' ? `${event.kv.key}=${event.kv.value}` : event.key,
          ),
          [`${at}a=1`, `${at}z=2`, `${at}b=3`, `${at}a`],
        )
        assert.ok(events[1]?.type === 'put' && events[1].kv.modRevision === both.revision)
      },
    )

    on('history that was compacted is not told', async (client, at) => {
      const { revision } = await client.txn({
        when: [],
        apply: [{ type: 'put', key: `${at}a`, value: '1' }],
      })
      await client.txn({ when: [], apply: [{ type: 'put', key: `${at}a`, value: '2' }] })
      const last = await client.txn({
        when: [],
        apply: [{ type: 'put', key: `${at}a`, value: '3' }],
      })
      await client.compact(last.revision)
      await client.compact(last.revision)
      await assert.rejects(client.range({ key: `${at}a`, revision }), { reason: 'compacted' })
      await assert.rejects(
        async () => {
          const request = { key: `${at}a`, fromRevision: revision }
          for await (const _ of client.watch(request, new AbortController().signal)) {
            // Nothing may come but the sign that it stands.
          }
        },
        { reason: 'compacted' },
      )
    })

    on('a key goes with its lease, and a lease with its time', async (client, at) => {
      const lease = await client.leaseGrant(60)
      const { leaseId } = lease
      const key = `${at}a`
      await client.txn({ when: [], apply: [{ type: 'put', key, value: '1', leaseId }] })
      assert.equal((await client.range({ key })).kvs[0]?.leaseId, leaseId)
      assert.equal((await client.leaseKeepAlive(leaseId)).ttlSeconds, lease.ttlSeconds)
      await client.leaseRevoke(leaseId)
      assert.deepEqual((await client.range({ key })).kvs, [])
      await assert.rejects(client.leaseKeepAlive(leaseId), { reason: 'leaseNotFound' })
      await assert.rejects(client.leaseRevoke(leaseId), { reason: 'leaseNotFound' })
      await assert.rejects(
        client.txn({ when: [], apply: [{ type: 'put', key, value: '1', leaseId }] }),
        { reason: 'leaseNotFound' },
      )
      const short = await client.leaseGrant(1)
      const { revision } = await client.txn({
        when: [],
        apply: [{ type: 'put', key, value: '2', leaseId: short.leaseId }],
      })
      for await (const { events } of client.watch(
        { key, fromRevision: revision + 1 },
        AbortSignal.timeout(20_000),
      )) {
        if (events.length === 0) continue
        assert.equal(events[0]?.type, 'delete')
        return
      }
      assert.fail('the lease did not end')
    })

    on('members and their state can be asked for', async (client) => {
      const members = await client.memberList()
      const status = await client.status()
      assert.ok(members.some((member) => member.memberId === status.memberId))
      assert.ok(members.some((member) => member.memberId === status.leaderId))
      assert.match(status.version, /^3\.\d+\.\d+$/)
      assert.ok(status.revision > 0)
      await assert.rejects(client.memberRemove('1234567'), { reason: 'memberNotFound' })
    })

    on('what is cancelled ends, and says so', async (client, at) => {
      const done = new AbortController()
      done.abort()
      await assert.rejects(client.range({ key: at }, { signal: done.signal }), {
        reason: 'cancelled',
      })
      for await (const _ of client.watch({ key: at, fromRevision: 1 }, done.signal)) {
        assert.fail('an aborted watch tells nothing')
      }
    })

    on('a snapshot has bytes', async (client) => {
      let size = 0
      for await (const part of client.snapshot(new AbortController().signal)) size += part.length
      assert.ok(size > 0)
    })

    on('a closed client refuses', async (client, at) => {
      await client.close()
      await assert.rejects(client.range({ key: at }, { deadlineMs: 100 }), {
        reason: 'unavailable',
      })
    })
  })
}
