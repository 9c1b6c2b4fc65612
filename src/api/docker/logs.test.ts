import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { afterEach, describe, test } from 'node:test'
import { UserError } from '../../base/index.ts'
import { FrameReader } from '../../engine/index.ts'
import { type ClusterNode, idFrom, type TaskId, type TaskState } from '../../model/index.ts'
import { buildNode, buildRevision, buildTask, buildWorkload } from '../../model/testing.ts'
import type { LogLine, LogOptions, LogSource } from '../../wire/index.ts'
import { type Harness, openHarness } from './testing.ts'

const taskId = 't1'.padEnd(25, '0')
const workloadId = 'w1'.padEnd(25, '0')

let harness: Harness | undefined
afterEach(() => harness?.close())

const line = (fraction: string, text: string, stream: LogLine['stream'] = 'stdout'): LogLine => ({
  taskId: idFrom(taskId),
  nodeId: idFrom('far'),
  stream,
  timestamp: `2026-01-01T00:00:00${fraction}Z`,
  details: {},
  data: Buffer.from(`${text}\n`),
})

describe('logs that are followed', () => {
  test('go on where they broke off when their node is back, each line once', async () => {
    const asked: LogOptions[] = []
    let broken = (): void => {}
    const isBroken = new Promise<void>((resolve) => (broken = resolve))
    const logs: LogSource = {
      async *logs(_id: TaskId, options: LogOptions, signal: AbortSignal) {
        asked.push(options)
        if (asked.length === 1) {
          // Engines leave zeros out; a line may also be told a little late.
          yield* [line('.1', 'a'), line('.05', 'late'), line('.1', 'b', 'stderr')]
          broken()
          throw new UserError('unavailable', 'the session is over')
        }
        yield* [line('.05', 'late'), line('.1', 'a'), line('.1', 'b', 'stderr')]
        yield* [line('.100', 'c'), line('.11', 'd')]
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      },
    }
    const open = await openHarness({ parts: { logs } })
    harness = open
    const node = buildNode({ id: 'far', hostname: 'far' })
    const workload = buildWorkload({
      id: workloadId,
      name: 'web',
      spec: { revisionId: idFrom('r1') },
    })
    await open
      .store()
      .commit(
        [
          node,
          workload,
          buildRevision({ id: 'r1', workloadId }),
          buildTask({ id: taskId, workloadId, nodeId: 'far' }),
        ].map((object) => ({ type: 'create', object })),
      )
    const setState = async (state: ClusterNode['status']['state']): Promise<void> => {
      const known = open.store().view.get('node', 'far')
      assert.ok(known)
      const object = { ...known, status: { ...known.status, state } }
      await open.store().commit([{ type: 'update', object }])
    }

    const texts: string[] = []
    const done = new Promise<void>((resolve, reject) => {
      const path = '/v1.41/services/web/logs?stdout=1&stderr=1&follow=1&tail=5'
      const sent = request({ socketPath: open.socketPath, path }, (response) => {
        const reader = new FrameReader()
        response.on('data', (chunk: Buffer) => {
          for (const { data } of reader.push(chunk)) texts.push(data.toString().trim())
          if (!texts.includes('d')) return
          sent.destroy()
          resolve()
        })
      })
      sent.on('error', reject)
      sent.end()
    })
    await isBroken
    await setState('down')
    await setState('ready')
    await done
    assert.deepEqual(texts, [
      ...['a', 'late', 'b', 'warning: incomplete log stream: node far is not available', 'c', 'd'],
    ])
    assert.deepEqual(
      asked.map(({ tail, sinceMs }) => [tail, sinceMs]),
      [
        [5, undefined],
        ['all', Date.UTC(2026, 0, 1) + 100],
      ],
    )
  })

  test('tell all of a task that ran only after it was asked, and go on with what takes its place', async () => {
    const nextId = 't2'.padEnd(25, '0')
    let died = (): void => {}
    const isDead = new Promise<void>((resolve) => (died = resolve))
    let asked = 0
    const logs: LogSource = {
      async *logs(id: TaskId) {
        if (id === nextId) yield line('.3', 'c')
        if (id !== taskId) return
        asked += 1
        // As an engine ends the log of a container that does not run yet.
        if (asked === 1) return
        yield line('.1', 'a')
        if (asked === 2) await isDead
        else yield line('.2', 'b')
      },
    }
    const open = await openHarness({ parts: { logs } })
    harness = open
    const store = open.store()
    const objects = [
      buildNode({ id: 'far', hostname: 'far' }),
      buildWorkload({ id: workloadId, name: 'web', spec: { revisionId: idFrom('r1') } }),
      buildRevision({ id: 'r1', workloadId }),
      buildTask({ id: taskId, workloadId, nodeId: 'far', state: 'starting' }),
    ]
    await store.commit(objects.map((object) => ({ type: 'create', object })))
    const become = async (state: TaskState): Promise<void> => {
      const known = store.view.get('task', taskId)
      assert.ok(known)
      await store.commit([
        { type: 'update', object: { ...known, status: { ...known.status, state } } },
      ])
    }
    const texts: string[] = []
    const reader = new FrameReader()
    const path = '/v1.41/services/web/logs?stdout=1&stderr=1&follow=1'
    const sent = request({ socketPath: open.socketPath, path })
    sent.end()
    const [response]: readonly IncomingMessage[] = await once(sent, 'response')
    assert.ok(response)
    await become('running')
    for await (const chunk of response) {
      for (const { data } of reader.push(chunk)) texts.push(data.toString().trim())
      switch (texts.at(-1)) {
        case 'a':
          died()
          await become('failed')
          break
        case 'b': {
          const next = buildTask({ id: nextId, workloadId, nodeId: 'far' })
          await store.commit([{ type: 'create', object: next }])
          break
        }
        case 'c':
          for (const kind of ['task', 'workload'] as const)
            for (const { id, version } of [...store.view.list(kind)])
              await store.commit([{ type: 'delete', kind, id, version }])
      }
    }
    assert.deepEqual(texts, ['a', 'b', 'c'])
  })
})
