import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog, UserError } from '../base/index.ts'
import { idFrom, type Network } from '../model/index.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import { openMemoryStore } from '../store/index.ts'
import { openAttachmentDesk } from './attachment-desk.ts'
import { NodeAttachments } from './node-attachments.ts'

const base = {
  kind: 'network',
  namespace: 'default',
  labels: {},
  version: 1,
  specVersion: 1,
  createdAtMs: 0,
  updatedAtMs: 0,
  source: { dialect: 'docker', document: {} },
} as const

function network(name: string, attachable: boolean): Network {
  return {
    ...base,
    id: idFrom(name),
    name,
    spec: {
      driver: 'overlay',
      internal: false,
      attachable,
      ingress: false,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
    },
    status: { subnet: '10.0.1.0/24', gateway: '10.0.1.1', vni: 4096 },
  }
}

async function open() {
  const clock = new VirtualClock()
  const store = await openMemoryStore({ clock })
  await store.commit(
    [network('open', true), network('shut', false)].map((object) => ({ type: 'create', object })),
  )
  let last = 1
  const allocator = {
    freeAddress: (_: unknown, asked?: string) => ({
      address: asked ?? `10.0.1.${++last}`,
      mac: '02:42:0a:00:01:02',
    }),
  }
  const deskOf = (node: string) => openAttachmentDesk({ store, allocator, clock }, idFrom(node))
  let isCut = false
  const known = new Map<string, ReadonlySet<string>>()
  const desk = deskOf('n1')
  const cut = async <T>(work: () => Promise<T>): Promise<T> => {
    if (isCut) throw new UserError('unavailable', 'no manager answers')
    return await work()
  }
  const attachments = new NodeAttachments({
    desk: () => ({
      attach: (wish) => cut(() => desk.attach(wish)),
      detach: (id, containers) => cut(() => desk.detach(id, containers)),
      list: () => cut(() => desk.list()),
    }),
    dataPlane: { ensureNetwork: async ({ name }) => name, nameserversFor: () => ['10.0.1.1'] },
    plain: () => ({ known: async () => known }),
    clock,
    log: silentLog,
  })
  return {
    clock,
    attachments,
    known,
    deskOf,
    setCut: (is: boolean) => {
      isCut = is
    },
    kept: () =>
      (store.view.get('network', 'open')?.status.attachments ?? []).map(
        ({ nodeId, container }) => `${nodeId} ${container}`,
      ),
    wish: (container: string, name = 'open') => ({ network: name, container, names: [container] }),
  }
}

describe('places of plain containers', () => {
  test('a place is kept until its container is gone, and then free', async () => {
    const { clock, attachments, known, kept, wish } = await open()
    const place = await attachments.reserve(wish('c1'))
    assert.deepEqual([place?.address, place?.engineNetwork], ['10.0.1.2', 'open'])
    known.set('c1', new Set(['open']))
    attachments.sweep()
    await clock.advance(120_000)
    assert.deepEqual(kept(), ['n1 c1'])
    // Taken off the network behind the daemon's back.
    known.set('c1', new Set(['bridge']))
    attachments.sweep()
    await clock.advance(1)
    assert.deepEqual(kept(), [])
    await attachments.close()
  })

  test('a container that never shows up loses its place by itself, after a while', async () => {
    const { clock, attachments, kept, wish } = await open()
    await attachments.reserve(wish('c1'))
    attachments.sweep() // What a daemon does that starts again after a crash in between.
    await clock.advance(30_000)
    assert.deepEqual(kept(), ['n1 c1'])
    await clock.advance(31_000)
    assert.deepEqual(kept(), [])
    await attachments.close()
  })

  test('what cannot be given back for want of a manager is given back later', async () => {
    const { clock, attachments, kept, wish, setCut } = await open()
    const place = await attachments.reserve(wish('c1'))
    await clock.advance(61_000)
    setCut(true)
    await attachments.release(idFrom(place?.networkId ?? ''), ['c1'])
    await clock.advance(20_000)
    assert.deepEqual(kept(), ['n1 c1'])
    setCut(false)
    await clock.advance(6_000)
    assert.deepEqual(kept(), [])
    await attachments.close()
  })

  test('a leader that is looked for is waited for, and not for ever', async () => {
    const { clock, attachments, wish, setCut } = await open()
    setCut(true)
    const waiting = attachments.reserve(wish('c1'))
    await clock.advance(3_000)
    setCut(false)
    await clock.advance(1_000)
    assert.equal((await waiting)?.address, '10.0.1.2')
    setCut(true)
    const late = assert.rejects(attachments.reserve(wish('c2')), { code: 'unavailable' })
    await clock.advance(11_000)
    await late
    await attachments.close()
  })

  test('a node frees its own places only', async () => {
    const { attachments, kept, wish, deskOf } = await open()
    const other = deskOf('n2')
    await other.attach(wish('c1'))
    await attachments.reserve(wish('c1'))
    assert.deepEqual(kept(), ['n2 c1', 'n1 c1'])
    await attachments.release(idFrom('open'), ['c1'])
    assert.deepEqual(kept(), ['n2 c1'])
    assert.deepEqual(
      (await other.list()).map(({ container }) => container),
      ['c1'],
    )
    await attachments.close()
  })

  test('a network that is not attachable, or not there, is said', async () => {
    const { attachments, wish } = await open()
    await assert.rejects(attachments.reserve(wish('c1', 'shut')), {
      code: 'forbidden',
      message: /network shut not manually attachable/,
    })
    assert.equal(await attachments.reserve(wish('c1', 'nowhere')), undefined)
    await attachments.close()
  })
})
