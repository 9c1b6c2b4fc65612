import assert from 'node:assert/strict'
import { test } from 'node:test'
import { buildNode, buildRevision, buildTask, buildWorkload } from '../../model/testing.ts'
import { openMemoryStore } from '../../store/index.ts'
import { nodesUp, raiseService } from './raise-service.ts'
import { field } from './testing.ts'

test('running tasks are counted anew once one of them, or a node, has changed', async () => {
  const clock = { nowMs: () => 0, sleep: async () => {} }
  const store = await openMemoryStore({ clock })
  const { view } = store
  const nodes = ['n1', 'n2', 'n3'].map((id) => buildNode({ id, hostname: id }))
  const tasks = nodes.map(({ id: nodeId }) =>
    buildTask({ id: `on-${nodeId}`, name: `on-${nodeId}`, nodeId, state: 'running' }),
  )
  const workload = buildWorkload()
  const objects = [workload, buildRevision(), ...nodes, ...tasks]
  await store.commit(objects.map((object) => ({ type: 'create', object })))
  const counted = () => {
    const raised = raiseService(view, workload, { insertDefaults: false, status: nodesUp(view) })
    return field(field(raised, 'ServiceStatus'), 'RunningTasks')
  }
  const setNode = async (id: string, state: 'ready' | 'down') => {
    const node = view.get('node', id)
    assert.ok(node)
    await store.commit([{ type: 'update', object: { ...node, status: { ...node.status, state } } }])
  }
  assert.equal(counted(), 3)
  assert.equal(counted(), 3)
  await setNode('n1', 'down')
  assert.equal(counted(), 2)
  const task = view.get('task', 'on-n2')
  assert.ok(task)
  await store.commit([{ type: 'update', object: { ...task, desiredState: 'shutdown' } }])
  assert.equal(counted(), 1)
  // As many nodes as before, but others.
  await setNode('n1', 'ready')
  await setNode('n3', 'down')
  assert.equal(counted(), 1)
  const node = view.get('node', 'n1')
  assert.ok(node)
  await store.commit([{ type: 'delete', kind: 'node', id: node.id, version: node.version }])
  assert.equal(counted(), 0)
})

test('a global service is not missing tasks on nodes that are down', async () => {
  const clock = { nowMs: () => 0, sleep: async () => {} }
  const store = await openMemoryStore({ clock })
  const { view } = store
  const nodes = [buildNode({ id: 'n1' }), buildNode({ id: 'n2', hostname: 'n2', state: 'down' })]
  const tasks = nodes.map(({ id: nodeId }) =>
    buildTask({ id: `on-${nodeId}`, name: `on-${nodeId}`, nodeId, state: 'running' }),
  )
  const workload = buildWorkload({ spec: { mode: { type: 'global' } } })
  const objects = [workload, buildRevision(), ...nodes, ...tasks]
  await store.commit(objects.map((object) => ({ type: 'create', object })))
  const raised = raiseService(view, workload, { insertDefaults: false, status: nodesUp(view) })
  const status = field(raised, 'ServiceStatus')
  assert.deepEqual(status, { RunningTasks: 1, DesiredTasks: 1, CompletedTasks: 0 })
})
