import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { UserError } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import type { AnyObject } from '../model/index.ts'
import { buildNode, buildTask, buildWorkload } from '../model/testing.ts'
import { openMemoryStore, type View } from '../store/index.ts'
import { pickTask } from './pick-task.ts'

const container = (containerId: string) => ({ containerId, pid: 1 })
const id = (start: string) => start.padEnd(25, '0')

const objects: readonly AnyObject[] = [
  buildNode({ id: 'n1', hostname: 'one' }),
  buildNode({ id: 'n2', hostname: 'two' }),
  buildNode({ id: 'n3', hostname: 'gone', state: 'down' }),
  buildWorkload({ id: id('w1'), name: 'web' }),
  buildWorkload({ id: id('w2'), name: 'agent' }),
  buildWorkload({ id: id('w3'), name: 'lost' }),
  buildWorkload({ id: id('w4'), name: 'none' }),
  buildWorkload({ id: id('w5'), name: 'waits' }),
  buildTask({ id: id('a1'), workloadId: id('w1'), slot: 1, state: 'failed' }),
  buildTask({
    ...{ id: id('a2'), workloadId: id('w1'), slot: 2, nodeId: 'n2' },
    status: { state: 'running', ready: false, container: container('c2') },
  }),
  buildTask({
    ...{ id: id('a3'), workloadId: id('w1'), slot: 3 },
    status: { state: 'running', container: container('c3') },
  }),
  ...['n1', 'n2'].map((nodeId) =>
    buildTask({
      ...{ id: id(`b${nodeId}`), workloadId: id('w2'), slot: undefined, nodeId },
      status: { state: 'running', container: container(`c${nodeId}`) },
    }),
  ),
  buildTask({
    ...{ id: id('d1'), workloadId: id('w3'), nodeId: 'n3' },
    status: { state: 'running', container: container('c4') },
  }),
  buildTask({
    ...{ id: id('e1'), workloadId: id('w5'), nodeId: undefined },
    status: { state: 'pending', error: 'no suitable node' },
  }),
]

async function viewOfAll(): Promise<View> {
  const store = await openMemoryStore({ clock: openRealClock() })
  await store.commit(objects.map((object) => ({ type: 'create', object })))
  return store.view
}

describe('pickTask', () => {
  const found = [
    { text: 'web', name: 'web.3', why: 'the one that is ready' },
    { text: 'web.2', name: 'web.2', why: 'by slot, ready or not' },
    { text: 'a2', name: 'web.2', why: 'by the beginning of its id' },
    { text: id('a2'), name: 'web.2', why: 'by its id' },
    { text: `web.2.${id('a2')}`, name: 'web.2', why: 'as docker ps names it' },
    { text: 'agent.two', name: 'agent.two', why: 'of a global service, by node' },
    { text: 'agent.n1', name: 'agent.one', why: 'by the id of the node' },
  ]
  for (const { text, name, why } of found) {
    test(`${text}: ${why}`, async () => assert.equal(pickTask(await viewOfAll(), text).name, name))
  }

  const refused = [
    { text: 'nosuch', code: 'notFound', said: /there is no service or task nosuch/ },
    { text: '', code: 'notFound', said: /there is no service or task / },
    { text: 'nosuch.1', code: 'notFound', said: /there is no service or task nosuch\.1/ },
    { text: 'web.9', code: 'notFound', said: /web\.9 It has web\.1, web\.2, web\.3\./ },
    { text: 'a', code: 'ambiguous', said: /a is ambiguous \(3 services and tasks match\)/ },
    { text: 'web.1', code: 'failedPrecondition', said: /web\.1 does not run: its state is failed/ },
    { text: 'lost', code: 'unavailable', said: /lost\.1 runs on gone, which is down/ },
    { text: 'none', code: 'failedPrecondition', said: /no task that runs: it has none at all/ },
    {
      ...{ text: 'waits', code: 'failedPrecondition' },
      said: /service waits has no task that runs: its state is pending \(no suitable node\)/,
    },
  ]
  for (const { text, code, said } of refused) {
    test(`"${text}" is refused as ${code}, with a way to go on`, async () => {
      const view = await viewOfAll()
      assert.throws(
        () => pickTask(view, text),
        (error) =>
          error instanceof UserError &&
          error.code === code &&
          error.next !== undefined &&
          said.test(`${error.message} ${error.next}`),
      )
    })
  }
})
