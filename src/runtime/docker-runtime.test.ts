import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, stat, statfs } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf, silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { type Engine, openEngine } from '../engine/index.ts'
import { type ContainerSpec, idFrom, type TaskId } from '../model/index.ts'
import {
  buildAssignment,
  buildMaterials,
  type ContractBehaviour,
  collectEvents,
  describeRuntimeContract,
  ended,
} from './contract.ts'
import { openDockerRuntime } from './docker-runtime.ts'
import type { RuntimeEvent } from './runtime.ts'
import { removeSecretsDir } from './task-files.ts'

const dockerAddress = 'unix:///var/run/docker.sock'
const clusterId = `rt-${process.pid}`

const containers: Record<ContractBehaviour, Partial<ContainerSpec>> = {
  runs: { args: ['sleep', '1000'], init: true },
  'exits with 3': { args: ['sh', '-c', 'exit 3'] },
  'writes "hello" to stdout and ends with 0': { args: ['echo', 'hello'] },
  'ignores its stop signal': { args: ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done'] },
  'has no image': { image: 'rt-nosuch:img' },
  'cannot start': { args: ['/no/such/program'] },
  'is healthy': {
    args: ['sleep', '1000'],
    init: true,
    health: { test: ['CMD', 'true'] },
  },
  'is not healthy': {
    args: ['sleep', '1000'],
    init: true,
    health: { test: ['CMD-SHELL', 'echo sick; exit 1'] },
  },
}

describeRuntimeContract('the Docker runtime', async () => {
  const engine = openEngine({ address: dockerAddress })
  const missing = await whyNotHere(engine)
  if (missing !== undefined) {
    engine.close()
    return { skip: missing }
  }
  const folder = await mkdtemp(join(tmpdir(), 'skep-runtime-'))
  const secretsDir = join(folder, 'secrets')
  const runtime = openDockerRuntime({
    engine,
    clusterId,
    stateDir: join(folder, 'state'),
    secretsDir,
    clock: openRealClock(),
    log: silentLog,
  })
  return {
    runtime,
    materials: buildMaterials({ clusterId }),
    container: (behaviour) => containers[behaviour],
    async close() {
      runtime.close()
      engine.close()
      await removeSecretsDir(secretsDir)
      await rm(folder, { recursive: true, force: true })
    },
  }
})

describe('the Docker runtime', async () => {
  const engine = openEngine({ address: dockerAddress })
  const missing = await whyNotHere(engine)
  const skip = missing ?? false
  const { signal } = new AbortController()
  const folder = await mkdtemp(join(tmpdir(), 'skep-runtime-'))
  const secretsDir = join(folder, 'secrets')
  const stateDir = join(folder, 'state')
  const open = (address = dockerAddress) =>
    openDockerRuntime({
      engine: openEngine({ address }),
      clusterId,
      stateDir,
      secretsDir,
      clock: openRealClock(),
      log: silentLog,
    })
  let runtime = open()
  const made: TaskId[] = []
  const networks: string[] = []
  after(async () => {
    if (missing === undefined) {
      for (const taskId of made) await runtime.remove(taskId)
      for (const name of networks) await engine.networks.remove(name)
    }
    engine.close()
    await removeSecretsDir(secretsDir)
    await rm(folder, { recursive: true, force: true })
  })

  async function run(
    given: Parameters<typeof buildAssignment>[0],
    materials = buildMaterials({ clusterId }),
  ): Promise<TaskId> {
    const assignment = buildAssignment({
      ...given,
      container: { args: ['sleep', '1000'], init: true, ...given?.container },
    })
    made.push(assignment.task.id)
    await runtime.prepare(assignment, materials, signal)
    await runtime.start(assignment.task.id, signal)
    return assignment.task.id
  }
  /** What a shell line in the task's container prints. */
  async function shell(taskId: TaskId, line: string): Promise<string> {
    const result = await runtime.probe(taskId, { test: ['CMD-SHELL', line] }, signal)
    return (result?.output ?? '').trim()
  }

  const secretId = idFrom<'secret'>('s1')
  const configId = idFrom<'config'>('c1')
  const withFiles = buildMaterials({
    clusterId,
    secrets: new Map([[secretId, { id: secretId, name: 'pw', data: Buffer.from('hunter2') }]]),
    configs: new Map([
      [
        configId,
        { id: configId, name: 'cfg', data: Buffer.from('n={{.Task.Slot}}'), templating: 'golang' },
      ],
    ]),
  })
  const filed: Partial<ContainerSpec> = {
    user: '1000:1000',
    secrets: [
      { type: 'file', id: secretId, name: 'pw', target: 'pw', uid: '1000', gid: '7', mode: 0o400 },
      {
        type: 'file',
        id: secretId,
        name: 'pw',
        target: '/etc/pw',
        uid: '0',
        gid: '0',
        mode: 0o444,
      },
    ],
    configs: [
      { type: 'file', id: configId, name: 'cfg', target: 'c.ini', uid: '0', gid: '0', mode: 0o444 },
    ],
  }

  test('secrets and configs reach the container through memory only, and go with the task', {
    skip,
  }, async () => {
    const taskId = await run({ container: filed }, withFiles)
    assert.equal(await shell(taskId, 'cat /run/secrets/pw /etc/pw /c.ini'), 'hunter2hunter2n=1')
    assert.equal(
      await shell(taskId, 'stat -c "%u %g %a" /run/secrets/pw /etc/pw'),
      '1000 7 400\n0 0 444',
    )
    assert.match(await shell(taskId, 'df -T /run/secrets/pw /etc/pw /c.ini | grep -c tmpfs'), /^3$/)
    assert.match(await shell(taskId, 'touch /run/secrets/x'), /Read-only|Permission denied/)
    const { containerId } = (await runtime.inspect(taskId)) ?? {}
    const inspected = JSON.stringify(await engine.containers.inspect(containerId ?? ''))
    assert.doesNotMatch(inspected, /hunter2/)
    // Nothing of it lies on a disk, and none but root may look.
    await mkdir(stateDir, { recursive: true })
    assert.deepEqual(await readdir(stateDir), [])
    assert.equal((await stat(join(secretsDir, 'tasks'))).mode & 0o777, 0o700)
    assert.equal((await statfs(join(secretsDir, 'tasks'))).type, 0x01021994)
    await runtime.remove(taskId)
    assert.deepEqual(await readdir(join(secretsDir, 'tasks')), [])
    // An earlier version kept configs there.
    await mkdir(join(stateDir, 'task-files', taskId), { recursive: true })
    await runtime.remove(taskId)
    assert.deepEqual(await readdir(join(stateDir, 'task-files')), [])
  })

  test('a new daemon finds container, files and log of the one before', { skip }, async () => {
    const taskId = await run({ container: filed }, withFiles)
    const before = await runtime.inspect(taskId)
    const leftover = join(secretsDir, 'tasks', 'x'.repeat(25))
    await mkdir(leftover)
    runtime.close()
    runtime = open()
    const listed = (await runtime.list()).find((container) => container.taskId === taskId)
    assert.deepEqual(listed, before)
    assert.equal(await shell(taskId, 'cat /run/secrets/pw'), 'hunter2')
    // Files of a task that ended meanwhile are swept.
    await assert.rejects(stat(leftover), { code: 'ENOENT' })
    assert.equal((await runtime.start(taskId, signal)).pid, before?.pid)
    await runtime.remove(taskId)
  })

  test('files that are gone are made again for a container that has not started', {
    skip,
  }, async () => {
    const assignment = buildAssignment({
      container: { args: ['sleep', '9'], init: true, ...filed },
    })
    const { id } = assignment.task
    made.push(id)
    await runtime.prepare(assignment, withFiles, signal)
    await rm(join(secretsDir, 'tasks', id), { recursive: true }) // as after a reboot
    await runtime.prepare(assignment, withFiles, signal)
    await runtime.start(id, signal)
    assert.equal(await shell(id, 'cat /run/secrets/pw'), 'hunter2')
  })

  test('a task has its addresses on its networks', { skip }, async () => {
    const ids = ['front', 'back'].map((name) => idFrom<'network'>(name))
    for (const [index, id] of ids.entries()) {
      const name = `rt-${process.pid}-${id}`
      await engine.networks.create({
        Name: name,
        Driver: 'bridge',
        IPAM: { Config: [{ Subnet: `10.212.${index}.0/24`, Gateway: `10.212.${index}.1` }] },
      })
      networks.push(name)
    }
    const addresses = ids.map((networkId, index) => ({
      networkId,
      address: `10.212.${index}.7`,
      mac: `02:42:0a:d4:0${index}:07`,
    }))
    const engineNetworks = new Map(ids.map((id, index) => [id, networks[index] ?? '']))
    const materials = buildMaterials({ clusterId, engineNetworks })
    const assignment = buildAssignment({
      container: { args: ['sleep', '1000'], init: true },
      task: { addresses },
    })
    const taskId = assignment.task.id
    made.push(taskId)
    await runtime.prepare(assignment, materials, signal)
    await runtime.prepare(assignment, materials, signal) // as after a crash in between
    await runtime.start(taskId, signal)
    for (const { address, mac } of addresses) {
      assert.equal(
        await shell(taskId, `ip addr | grep -B1 'inet ${address}/24' | grep -c 'ether ${mac}'`),
        '1',
      )
    }
  })

  test('the host network is the host, and none is none', { skip }, async () => {
    const id = idFrom<'network'>('predefined')
    const on = async (network: string) =>
      run({}, buildMaterials({ clusterId, engineNetworks: new Map([[id, network]]) }))
    const { readlink } = await import('node:fs/promises')
    assert.equal(
      await shell(await on('host'), 'readlink /proc/self/ns/net'),
      await readlink('/proc/self/ns/net'),
    )
    assert.equal(await shell(await on('none'), 'ls /sys/class/net | grep -c eth'), '0')
  })

  test('a probe that hangs is unhealthy in time, and ended', { skip }, async () => {
    const taskId = await run({})
    const check = { test: ['CMD', 'sleep', '777'], timeoutMs: 300 }
    const result = await runtime.probe(taskId, check, signal)
    assert.equal(result?.healthy, false)
    assert.match(result?.output ?? '', /longer than 300 ms/)
    const left = () => shell(taskId, 'ps | grep -c "[s]leep 777"')
    // The engine ends it by a signal, which a busy machine delivers a little later.
    for (let tries = 0; tries < 1_000 && (await left()) !== '0'; tries++) await sleep(100)
    assert.equal(await left(), '0')
  })

  test('a bad mount is refused in the words of the engine', { skip }, async () => {
    const mounts: ContainerSpec['mounts'] = [
      {
        type: 'bind',
        source: '/nonexist',
        target: '/x',
        readOnly: false,
        bind: {
          nonRecursive: false,
          createMountpoint: false,
          readOnlyNonRecursive: false,
          readOnlyForceRecursive: false,
        },
      },
    ]
    await assert.rejects(run({ container: { mounts } }), {
      code: 'invalidInput',
      message: 'invalid mount config for type "bind": bind source path does not exist: /nonexist',
    })
  })

  test('a foreign container with the name of a task is left alone', { skip }, async () => {
    const assignment = buildAssignment()
    const { Id } = await engine.containers.create(assignment.name, { Image: 'busybox' })
    try {
      await assert.rejects(runtime.prepare(assignment, withFiles, signal), {
        code: 'conflict',
        message: /not Skep's/,
      })
    } finally {
      await engine.containers.remove(Id, {})
    }
  })

  test('a container that turns unhealthy says so', { skip }, async () => {
    const stop = new AbortController()
    const events = collectEvents(runtime, stop.signal)
    await events.until(({ type }) => type === 'resync')
    const taskId = await run({
      container: {
        health: { test: ['CMD-SHELL', 'echo sick; false'], intervalMs: 100, retries: 1 },
      },
    })
    await events.until(
      (event) =>
        event.type === 'changed' &&
        event.taskId === taskId &&
        event.action === 'health_status: unhealthy',
    )
    stop.abort()
    const seen = await runtime.inspect(taskId)
    assert.equal(seen?.health, 'unhealthy')
    assert.match(seen?.healthOutput ?? '', /^sick/)
  })

  test('a port that is taken is told in the words of the engine', { skip }, async () => {
    const port = { protocol: 'tcp', targetPort: 80, publishMode: 'host' } as const
    const first = await run({ assignment: { hostPorts: [{ ...port, publishedPort: 0 }] } })
    const taken = (await runtime.inspect(first))?.hostPorts[0]?.publishedPort ?? 0
    await assert.rejects(run({ assignment: { hostPorts: [{ ...port, publishedPort: taken }] } }), {
      message: /^starting container failed: .*port is already allocated/,
    })
  })

  test('a paused container stops like any other', { skip }, async () => {
    const taskId = await run({})
    const { containerId = '' } = (await runtime.inspect(taskId)) ?? {}
    execFileSync('docker', ['pause', containerId])
    assert.equal((await runtime.inspect(taskId))?.state, 'paused')
    await runtime.stop(taskId, 1000)
    assert.equal((await runtime.inspect(taskId))?.state, 'exited')
  })

  test('an out-of-memory kill is told as one', { skip }, async () => {
    const taskId = await run({
      container: {
        args: ['sh', '-c', 'x=a; while :; do x=$x$x; done'],
        limits: { memoryBytes: 16 << 20 },
      },
    })
    const seen = await ended(runtime, taskId)
    assert.equal(seen.oomKilled, true)
  })

  test('the log keeps streams apart, and a TTY log is read by line', { skip }, async () => {
    const read = async (tty: boolean) => {
      const args = ['sh', '-c', 'echo out; echo err >&2; sleep 0.2; printf "no newline"']
      const taskId = await run({ container: { args, tty, labels: { mine: 'a b' } } })
      // Not followed: Docker 20.10 drops a last line without newline from a followed log.
      await ended(runtime, taskId)
      const lines: string[] = []
      const options = { stdout: true, stderr: true, follow: false, tail: 'all' } as const
      for await (const line of runtime.logs(taskId, options, signal)) {
        lines.push(`${line.stream} ${Buffer.from(line.data).toString()}`)
      }
      return lines
    }
    assert.deepEqual((await read(false)).sort(), [
      'stderr err\n',
      'stdout no newline',
      'stdout out\n',
    ])
    assert.deepEqual((await read(true)).slice(0, 2), ['stdout out\r\n', 'stdout err\r\n'])
  })

  test('an engine that went away is told, and a new look asked for when it is back', {
    skip,
  }, async () => {
    const path = join(folder, 'engine.sock')
    /** Passes connections to the engine, until told to cut them. */
    const pass = async () => {
      const sockets = new Set<Socket>()
      const server = createServer((from) => {
        const to = connect(dockerAddress.slice('unix://'.length))
        for (const socket of [from, to]) sockets.add(socket.on('error', () => {}))
        from.pipe(to).pipe(from)
      })
      await new Promise<void>((resolve) => server.listen(path, resolve))
      return async () => {
        for (const socket of sockets) socket.destroy()
        await new Promise((resolve) => server.close(resolve))
      }
    }
    let stopEngine = await pass()
    const through = open(`unix://${path}`)
    const stop = new AbortController()
    const seen: RuntimeEvent['type'][] = []
    const told = (count: number) =>
      new Promise<void>((resolve) => {
        const look = setInterval(() => {
          if (seen.length < count) return
          clearInterval(look)
          resolve()
        }, 10)
      })
    through.watch((event) => seen.push(event.type), stop.signal)
    await told(1)
    await stopEngine()
    await told(2)
    await assert.rejects(through.list(), { code: 'unavailable' })
    stopEngine = await pass()
    await told(3)
    assert.deepEqual(seen, ['resync', 'unreachable', 'resync'])
    stop.abort()
    through.close()
    await stopEngine()
  })
})

async function whyNotHere(engine: Engine): Promise<string | undefined> {
  try {
    await engine.images.inspect('busybox')
    return undefined
  } catch (error) {
    return `needs a Docker Engine with the image busybox: ${messageOf(error)}`
  }
}
