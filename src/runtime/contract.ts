import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { newId, type Random } from '../base/index.ts'
import {
  type ContainerSpec,
  defaultNamespace,
  idFrom,
  noRestarts,
  type Task,
  type TaskId,
  type TaskTemplate,
} from '../model/index.ts'
import { buildContainer } from '../model/testing.ts'
import type { LogLine, TaskAssignment } from '../wire/index.ts'
import type { Materials, ObservedContainer, Runtime, RuntimeEvent } from './runtime.ts'

/** What the contract asks of a container; each runtime makes one that does it. */
export type ContractBehaviour =
  | 'runs'
  | 'exits with 3'
  | 'writes "hello" to stdout and ends with 0'
  | 'ignores its stop signal'
  | 'has no image'
  | 'cannot start'
  | 'is healthy'
  | 'is not healthy'

export interface RuntimeUnderTest {
  readonly runtime: Runtime
  readonly materials: Materials
  /** A container spec, over `baseContainer`, that behaves like this. */
  container(behaviour: ContractBehaviour): Partial<ContainerSpec>
  /** Tells that `assignment` is of this behaviour, before it is used. */
  expect?(assignment: TaskAssignment, behaviour: ContractBehaviour): void
  close(): Promise<void>
}

export const baseContainer: ContainerSpec = buildContainer({ image: 'busybox' })

const idRandom: Random = { below: (limit) => Math.floor(Math.random() * limit) }

/** A task of the service `rt-web` as its node gets it. Ids are fresh. */
export function buildAssignment(
  given: {
    readonly container?: Partial<ContainerSpec>
    readonly template?: Partial<TaskTemplate>
    readonly task?: Partial<Task>
    readonly assignment?: Partial<TaskAssignment>
  } = {},
): TaskAssignment {
  const taskId = idFrom<'task'>(newId(idRandom))
  return {
    task: {
      kind: 'task',
      id: taskId,
      namespace: defaultNamespace,
      name: taskId,
      labels: {},
      version: 1,
      specVersion: 1,
      createdAtMs: 0,
      updatedAtMs: 0,
      workloadId: idFrom<'workload'>('w'.padEnd(25, '0')),
      revisionId: idFrom<'revision'>('r'.padEnd(25, '0')),
      slot: 1,
      desiredState: 'running',
      status: { state: 'assigned', atMs: 0, message: '', ready: false, hostPorts: [] },
      traffic: 'none',
      addresses: [],
      genericResources: [],
      restarts: noRestarts,
      ...given.task,
    },
    template: {
      containers: [{ ...baseContainer, ...given.container }],
      restart: {
        scope: 'task',
        condition: 'any',
        delayMs: 0,
        maxAttempts: 0,
        windowMs: 0,
      },
      placement: { constraints: [], spread: [], maxReplicasPerNode: 0, platforms: [] },
      reservations: { nanoCpus: 0, memoryBytes: 0, generic: [] },
      networks: [],
      forceUpdate: 0,
      ...given.template,
    },
    workload: { id: idFrom<'workload'>('w'.padEnd(25, '0')), name: 'rt-web', labels: {} },
    name: `rt-web.1.${taskId}`,
    hostPorts: [],
    engineNetworks: [],
    endpointPorts: [],
    drainMs: 0,
    ...given.assignment,
  }
}

/** Nothing but a node. */
export function buildMaterials(given: {
  readonly clusterId: string
  readonly secrets?: Materials['assignments']['secrets']
  readonly configs?: Materials['assignments']['configs']
  readonly engineNetworks?: Materials['engineNetworks']
}): Materials {
  return {
    assignments: {
      node: {
        id: idFrom<'node'>('n'.padEnd(25, '0')),
        clusterId: given.clusterId,
        hostname: 'host-1',
        platform: { architecture: 'x86_64', os: 'linux' },
      },
      secrets: given.secrets ?? new Map(),
      configs: given.configs ?? new Map(),
      networks: new Map(),
    },
    nameservers: [],
    engineNetworks: given.engineNetworks ?? new Map(),
  }
}

/** What every runtime must do. `open` may answer with the reason why it can't run here. */
export function describeRuntimeContract(
  name: string,
  open: () => Promise<RuntimeUnderTest | { readonly skip: string }>,
): void {
  describe(`${name} keeps the runtime's contract`, () => {
    // For all of it together; ends a hang.
    const signal = AbortSignal.timeout(900_000)
    let opened: RuntimeUnderTest | { readonly skip: string }
    const made: TaskId[] = []

    before(async () => {
      opened = await open()
    })
    after(async () => {
      if ('skip' in opened) return
      for (const taskId of made) await opened.runtime.remove(taskId)
      await opened.close()
    })

    function check(
      title: string,
      work: (runtime: Runtime, under: RuntimeUnderTest) => Promise<void>,
    ): void {
      test(title, async (context) => {
        if ('skip' in opened) context.skip(opened.skip)
        else await work(opened.runtime, opened)
      })
    }
    function assign(
      under: RuntimeUnderTest,
      behaviour: ContractBehaviour,
      more: Partial<TaskAssignment> = {},
    ): TaskAssignment {
      const assignment = buildAssignment({
        container: under.container(behaviour),
        assignment: more,
      })
      under.expect?.(assignment, behaviour)
      made.push(assignment.task.id)
      return assignment
    }
    async function started(under: RuntimeUnderTest, behaviour: ContractBehaviour): Promise<TaskId> {
      const assignment = assign(under, behaviour)
      await under.runtime.prepare(assignment, under.materials, signal)
      await under.runtime.start(assignment.task.id, signal)
      return assignment.task.id
    }

    check('says what the host has', async (runtime) => {
      const description = await runtime.describe()
      assert.ok(description.resources.nanoCpus >= 1e9)
      assert.ok(description.resources.memoryBytes > 0)
      assert.equal(description.platform.os, 'linux')
      assert.notEqual(description.hostname, '')
    })

    check('prepares without starting, once for any number of calls', async (runtime, under) => {
      const assignment = assign(under, 'runs')
      await runtime.prepare(assignment, under.materials, signal)
      const first = await runtime.inspect(assignment.task.id)
      await runtime.prepare(assignment, under.materials, signal)
      const second = await runtime.inspect(assignment.task.id)
      assert.equal(first?.state, 'created')
      assert.equal(first?.pid, 0)
      assert.equal(second?.containerId, first?.containerId)
      const listed = (await runtime.list()).filter(({ taskId }) => taskId === assignment.task.id)
      assert.equal(listed.length, 1)
    })

    check('starts once for any number of calls', async (runtime, under) => {
      const taskId = await started(under, 'runs')
      const seen = await runtime.inspect(taskId)
      const again = await runtime.start(taskId, signal)
      assert.equal(seen?.state, 'running')
      assert.ok(again.pid > 0)
      assert.equal(again.pid, seen?.pid)
      assert.equal(again.containerId, seen?.containerId)
      assert.equal(again.hasHealthCheck, false)
      assert.ok((seen?.startedAtMs ?? 0) > 0)
    })

    check('tells how a container ended by itself', async (runtime, under) => {
      const seen = await ended(runtime, await started(under, 'exits with 3'))
      assert.equal(seen.exitCode, 3)
      assert.equal(seen.oomKilled, false)
      assert.equal(seen.pid, 0)
      assert.ok((seen.finishedAtMs ?? 0) > 0)
    })

    check('stops, also twice, also what is not there', async (runtime, under) => {
      const taskId = await started(under, 'runs')
      await runtime.stop(taskId, 1000)
      assert.equal((await runtime.inspect(taskId))?.state, 'exited')
      await runtime.stop(taskId, 1000)
      await runtime.stop(idFrom<'task'>('nosuch'), 1000)
    })

    check('kills what does not stop within its grace', async (runtime, under) => {
      const taskId = await started(under, 'ignores its stop signal')
      await runtime.stop(taskId, 1000)
      const seen = await runtime.inspect(taskId)
      assert.equal(seen?.state, 'exited')
      assert.equal(seen?.exitCode, 137)
    })

    check('removes, also what runs, also twice', async (runtime, under) => {
      const taskId = await started(under, 'runs')
      await runtime.remove(taskId)
      assert.equal(await runtime.inspect(taskId), undefined)
      assert.ok(!(await runtime.list()).some((container) => container.taskId === taskId))
      await runtime.remove(taskId)
    })

    check('says which image there is not', async (runtime, under) => {
      const assignment = assign(under, 'has no image')
      const image = assignment.template.containers[0]?.image
      await assert.rejects(runtime.prepare(assignment, under.materials, signal), {
        code: 'notFound',
        message: new RegExp(`^No such image: ${image}`),
      })
      assert.equal(await runtime.inspect(assignment.task.id), undefined)
    })

    check('says why a container does not start', async (runtime, under) => {
      const assignment = assign(under, 'cannot start')
      await runtime.prepare(assignment, under.materials, signal)
      await assert.rejects(runtime.start(assignment.task.id, signal), {
        message: /^starting container failed: ./,
      })
      await assert.rejects(runtime.start(idFrom<'task'>('nosuch'), signal), { code: 'notFound' })
    })

    check('probes what has a check', async (runtime, under) => {
      const probe = async (behaviour: ContractBehaviour) => {
        const taskId = await started(under, behaviour)
        return runtime.probe(taskId, under.container(behaviour).health, signal)
      }
      assert.equal(await probe('runs'), undefined)
      assert.equal((await probe('is healthy'))?.healthy, true)
      assert.equal((await probe('is not healthy'))?.healthy, false)
      const taskId = await started(under, 'is healthy')
      assert.equal((await runtime.start(taskId, signal)).hasHealthCheck, true)
      assert.equal(await runtime.probe(taskId, { test: ['NONE'] }, signal), undefined)
    })

    check('gives the log, and its end when followed', async (runtime, under) => {
      const taskId = await started(under, 'writes "hello" to stdout and ends with 0')
      const read = async (options: { follow: boolean; tail: number | 'all' }) => {
        const lines: LogLine[] = []
        const wanted = { stdout: true, stderr: true, ...options }
        for await (const line of runtime.logs(taskId, wanted, signal)) lines.push(line)
        return lines
      }
      const [line, ...more] = await read({ follow: true, tail: 'all' })
      assert.equal(more.length, 0)
      assert.equal(line?.taskId, taskId)
      assert.equal(line?.stream, 'stdout')
      assert.equal(new TextDecoder().decode(line?.data).trimEnd(), 'hello')
      assert.ok(Date.parse(line?.timestamp ?? '') > 0)
      await ended(runtime, taskId)
      assert.equal((await read({ follow: false, tail: 1 })).length, 1)
      assert.equal((await read({ follow: false, tail: 0 })).length, 0)
    })

    check('calls back at each change', async (runtime, under) => {
      const stop = new AbortController()
      const seen = collectEvents(runtime, stop.signal)
      await seen.until((event) => event.type === 'resync')
      const assignment = assign(under, 'exits with 3')
      const { id } = assignment.task
      const told = (action: string) =>
        seen.until((e) => e.type === 'changed' && e.taskId === id && e.action === action)
      await runtime.prepare(assignment, under.materials, signal)
      await told('create')
      await runtime.start(id, signal)
      await told('start')
      await told('die')
      await runtime.remove(id)
      await told('destroy')
      stop.abort()
    })

    check('binds the ports asked of the host', async (runtime, under) => {
      const port = { protocol: 'tcp', targetPort: 80, publishedPort: 0 } as const
      const assignment = assign(under, 'runs', { hostPorts: [{ ...port, publishMode: 'host' }] })
      await runtime.prepare(assignment, under.materials, signal)
      const { hostPorts } = await runtime.start(assignment.task.id, signal)
      assert.equal(hostPorts.length, 1)
      assert.equal(hostPorts[0]?.targetPort, 80)
      assert.ok((hostPorts[0]?.publishedPort ?? 0) > 0)
      assert.deepEqual((await runtime.inspect(assignment.task.id))?.hostPorts, hostPorts)
    })

    check('an aborted call makes nothing', async (runtime, under) => {
      const assignment = assign(under, 'runs')
      const reason = new Error('no longer wanted')
      await assert.rejects(
        runtime.prepare(assignment, under.materials, AbortSignal.abort(reason)),
        reason,
      )
      assert.equal(await runtime.inspect(assignment.task.id), undefined)
    })
  })
}

/** Waits for events, not for time. */
export function collectEvents(
  runtime: Runtime,
  signal: AbortSignal,
): { until(is: (event: RuntimeEvent) => boolean): Promise<RuntimeEvent> } {
  const events: RuntimeEvent[] = []
  const waiting = new Set<() => void>()
  runtime.watch((event) => {
    events.push(event)
    for (const look of waiting) look()
  }, signal)
  return {
    until: (is) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = events.find(is)
          if (!found) return
          waiting.delete(look)
          resolve(found)
        }
        waiting.add(look)
        look()
      }),
  }
}

/** The container once it has ended. */
export async function ended(runtime: Runtime, taskId: TaskId): Promise<ObservedContainer> {
  const stop = new AbortController()
  try {
    for (;;) {
      const events = collectEvents(runtime, stop.signal)
      await events.until((event) => event.type === 'resync')
      const seen = await runtime.inspect(taskId)
      if (seen?.state === 'exited') return seen
      await events.until((event) => event.type === 'changed' && event.action === 'die')
    }
  } finally {
    stop.abort()
  }
}
