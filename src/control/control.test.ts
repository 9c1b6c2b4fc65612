import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Random, UserError } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { type ClusterNode, idFrom, type Task, type Workload } from '../model/index.ts'
import { buildContainer, buildNode, buildTask, buildTemplate } from '../model/testing.ts'
import { openMemoryStore, type Store } from '../store/index.ts'
import {
  type Control,
  initialNetworks,
  openControl,
  templateHash,
  type WorkloadDeclaration,
} from './index.ts'
import { declare } from './testing.ts'

async function open(): Promise<{ readonly store: Store; readonly control: Control }> {
  const clock = openRealClock()
  const store = await openMemoryStore({ clock })
  let state = 1
  const random: Random = {
    // A small generator is enough for ids that differ.
    below: (limit) => {
      state = (state * 48_271) % 2_147_483_647
      return state % limit
    },
  }
  const control = openControl({
    store,
    clock,
    random,
    sealer: {
      seal: (bytes, keyId) => ({
        keyId,
        nonce: '',
        ciphertext: Buffer.from(bytes).toString('hex'),
      }),
      unseal: ({ ciphertext }) => Buffer.from(ciphertext, 'hex'),
    },
  })
  await store.commit(initialNetworks(random).map((object) => ({ type: 'create', object })))
  return { store, control }
}

const port = (publishedPort: number) =>
  ({
    mode: 'vip',
    networks: [],
    ports: [{ protocol: 'tcp', targetPort: 80, publishedPort, publishMode: 'ingress' }],
  }) as const

function isCode(code: string) {
  return (error: unknown) => error instanceof UserError && error.code === code
}

function read(store: Store, workload: Workload): Workload {
  const stored = store.view.get('workload', workload.id)
  assert.ok(stored)
  return stored
}

describe('workloads', () => {
  test('two at once cannot publish the same port', async () => {
    const { store, control } = await open()
    const results = await Promise.allSettled([
      control.createWorkload(declare({ name: 'a', endpoint: port(8080) })),
      control.createWorkload(declare({ name: 'b', endpoint: port(8080) })),
    ])
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected'],
    )
    assert.equal(store.view.count('workload'), 1)
  })

  test('a secret cannot vanish between check and commit', async () => {
    const { store, control } = await open()
    const secret = await control.createSecret({
      name: 'pw',
      labels: {},
      source: { dialect: 'docker', document: {} },
      data: Buffer.from('x'),
    })
    const file = {
      type: 'file',
      id: secret.id,
      name: 'pw',
      target: 'pw',
      uid: '0',
      gid: '0',
      mode: 0o444,
    } as const
    const template = buildTemplate({ containers: [buildContainer({ secrets: [file] })] })
    const results = await Promise.allSettled([
      control.createWorkload(declare({ template })),
      control.removeSecret(secret.id),
    ])
    const done = results.filter(({ status }) => status === 'fulfilled')
    assert.equal(done.length, 1)
    assert.equal(store.view.count('secret'), store.view.count('workload'))
  })

  test("an update that races with a loop's write is planned anew", async () => {
    const { store, control } = await open()
    const workload = await control.createWorkload(declare())
    const before = read(store, workload)
    const racing = store.commit([
      { type: 'update', object: { ...before, status: { lastExecutionMs: 7 } } },
    ])
    await control.updateWorkload(
      { id: workload.id, version: before.specVersion, auth: { from: 'current' } },
      () => declare({ labels: { a: 'b' } }),
    )
    await racing
    assert.deepEqual(read(store, workload).labels, { a: 'b' })
    assert.equal(read(store, workload).status.lastExecutionMs, 7)
  })

  test('a rollback brings back template, mode, labels and ports', async () => {
    const { store, control } = await open()
    const first = declare({ labels: { v: '1' }, endpoint: port(8080) })
    const workload = await control.createWorkload(first)
    const second = declare({
      labels: { v: '2' },
      mode: { type: 'replicated', replicas: 5 },
      template: buildTemplate({ forceUpdate: 1 }),
      endpoint: port(8081),
    })
    const { specVersion } = read(store, workload)
    await control.updateWorkload(
      { id: workload.id, version: specVersion, auth: { from: 'current' } },
      () => second,
    )
    const updated = read(store, workload)
    assert.equal(updated.status.update?.state, 'updating')
    assert.equal(store.view.endpointsOfWorkload(workload.id)[0]?.spec.ports[0]?.publishedPort, 8081)
    await control.rollbackWorkload({ id: workload.id })
    const back = read(store, workload)
    assert.deepEqual([back.labels, back.spec.mode], [first.labels, first.mode])
    assert.equal(back.spec.revisionId, updated.spec.previousRevisionId)
    assert.equal(back.spec.previousRevisionId, updated.spec.revisionId)
    assert.equal(back.status.update?.state, 'rollbackStarted')
    assert.equal(store.view.endpointsOfWorkload(workload.id)[0]?.spec.ports[0]?.publishedPort, 8080)
  })

  test('scaling starts no update, and does not lose one that is under way', async () => {
    const { store, control } = await open()
    const workload = await control.createWorkload(declare())
    const update = (over: Partial<WorkloadDeclaration>) =>
      control.updateWorkload(
        { id: workload.id, version: read(store, workload).specVersion, auth: { from: 'current' } },
        () => declare(over),
      )
    await update({ mode: { type: 'replicated', replicas: 2 } })
    assert.equal(read(store, workload).status.update, undefined)
    const template = buildTemplate({ forceUpdate: 1 })
    await update({ mode: { type: 'replicated', replicas: 2 }, template })
    await update({ mode: { type: 'replicated', replicas: 3 }, template })
    const { spec, status } = read(store, workload)
    assert.equal(status.update?.state, 'updating')
    assert.equal(status.update?.revisionId, spec.revisionId)
    assert.deepEqual(
      store.view.revisionsOfWorkload(workload.id).map(({ number }) => number),
      [1, 2, 3, 4],
    )
  })

  test('a paused update goes on when the same declaration comes again', async () => {
    const { store, control } = await open()
    const workload = await control.createWorkload(declare())
    const before = read(store, workload)
    const paused = {
      state: 'paused',
      startedAtMs: 1,
      message: 'update paused',
      revisionId: before.spec.revisionId,
    } as const
    await store.commit([{ type: 'update', object: { ...before, status: { update: paused } } }])
    await control.updateWorkload(
      { id: workload.id, version: before.specVersion, auth: { from: 'current' } },
      () => declare(),
    )
    assert.equal(read(store, workload).status.update?.state, 'updating')
    assert.equal(read(store, workload).specVersion, before.specVersion)
  })

  test('each change of a job starts its next iteration', async () => {
    const { store, control } = await open()
    const job = { mode: { type: 'globalJob' } } as const
    const workload = await control.createWorkload(declare(job))
    const { specVersion } = read(store, workload)
    await control.updateWorkload(
      { id: workload.id, version: specVersion, auth: { from: 'current' } },
      () => declare({ ...job, template: buildTemplate({ forceUpdate: 1 }) }),
    )
    assert.equal(read(store, workload).spec.jobIteration, 1)
    assert.equal(read(store, workload).status.update, undefined)
  })

  test('removal takes the endpoint along, and leaves tasks and revisions to the loops', async () => {
    const { store, control } = await open()
    const workload = await control.createWorkload(declare())
    await control.removeWorkload(workload.id)
    assert.equal(store.view.count('workload') + store.view.count('endpoint'), 0)
    assert.equal(store.view.count('revision'), 1)
    await assert.rejects(control.removeWorkload(workload.id), isCode('notFound'))
  })

  test('a network may go with the last service on it, before its tasks have been told', async () => {
    const { store, control } = await open()
    const network = await control.createNetwork({
      name: 'front',
      labels: {},
      spec: {
        driver: 'overlay',
        internal: false,
        attachable: false,
        ingress: false,
        ipv6: false,
        encrypted: false,
        options: {},
        ipam: [],
        predefined: false,
      },
      source: { dialect: 'docker', document: {} },
    })
    const workload = await control.createWorkload(declare())
    const address = { networkId: network.id, address: '10.0.1.2', mac: '02:42:0a:00:01:02' }
    const task = buildTask({ workloadId: workload.id, addresses: [address] })
    await store.commit([{ type: 'create', object: task }])
    await assert.rejects(control.removeNetwork(network.id), isCode('inUse'))
    await control.removeWorkload(workload.id)
    await control.removeNetwork(network.id)
  })

  test('an encrypted network is refused while a node can not encrypt, and the node is named', async () => {
    const { store, control } = await open()
    const spec = {
      ...{ driver: 'overlay', internal: false, attachable: false, ingress: false, ipv6: false },
      ...{ encrypted: true, options: {}, ipam: [], predefined: false },
    }
    const source = { dialect: 'docker' as const, document: {} }
    const create = () => control.createNetwork({ name: 'secret', labels: {}, spec, source })
    const encryption = { how: 'kernel', publicKey: 'k' } as const
    const unable = { how: 'none', why: 'wg is not installed' } as const
    const nodes = [
      buildNode({ id: 'n1', hostname: 'able', encryption }),
      buildNode({ id: 'n2', hostname: 'unable', encryption: unable }),
      buildNode({ id: 'n3', hostname: 'away', state: 'down' }),
    ]
    await store.commit(nodes.map((object) => ({ type: 'create', object })))
    await assert.rejects(create(), {
      code: 'failedPrecondition',
      message: /and these have none: unable \(wg is not installed\)$/,
    })
    const node = store.view.get('node', 'n2')
    assert.ok(node)
    const description = { ...node.description, encryption }
    await store.commit([{ type: 'update', object: { ...node, description } }])
    assert.equal((await create()).spec.encrypted, true)
  })

  test('where a task may run is no part of what it runs', () => {
    const at = (constraint: string) =>
      templateHash(
        buildTemplate({
          placement: { constraints: [{ key: 'node.id', operator: '==', value: constraint }] },
        }),
        port(1),
      )
    assert.equal(at('a'), at('b'))
    assert.notEqual(templateHash(buildTemplate(), port(1)), templateHash(buildTemplate(), port(2)))
    assert.notEqual(
      templateHash(buildTemplate({ forceUpdate: 1 }), port(1)),
      templateHash(buildTemplate(), port(1)),
    )
  })
})

describe('nodes', () => {
  const worker = (): ClusterNode => {
    const { manager: _manager, ...node } = buildNode()
    return {
      ...node,
      id: idFrom('worker'),
      name: 'worker',
      spec: { role: 'worker', availability: 'active' },
      status: { state: 'down', message: '', address: '' },
    }
  }

  test('one that is removed loses every task, however many there are', async () => {
    const { store, control } = await open()
    const node = worker()
    await store.commit([{ type: 'create', object: node }])
    const count = 4_500
    for (let from = 0; from < count; from += 1_500) {
      await store.commit(
        Array.from({ length: 1_500 }, (_, index) => {
          const task: Task = { ...buildTask(), id: idFrom(`task${from + index}`), nodeId: node.id }
          return { type: 'create' as const, object: task }
        }),
      )
    }
    await control.removeNode(node.id, false)
    assert.equal(store.view.get('node', node.id), undefined)
    for (const task of store.view.tasksOfNode(node.id)) assert.equal(task.status.state, 'orphaned')
    assert.equal(store.view.tasksOfNode(node.id).length, count)
  })

  test('one that is up is removed only by force', async () => {
    const { store, control } = await open()
    const node: ClusterNode = { ...worker(), status: { state: 'ready', message: '', address: '' } }
    await store.commit([{ type: 'create', object: node }])
    await assert.rejects(control.removeNode(node.id, false), /is not down and can't be removed/)
    await control.removeNode(node.id, true)
    await assert.rejects(control.removeNode(node.id, true), isCode('notFound'))
  })
})
