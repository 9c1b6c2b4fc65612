/**
 * What `docker service ls` and `docker service ps` cost with many tasks in the store, as the API answers them, against a
 * server that sends the same bytes ready-made in the same run. Time grows with the size of the answer, not of the store.
 *
 *   node bench/api.ts [--json] [--tasks 1000,10000,30000]
 */
import { fork } from 'node:child_process'
import { createServer, request } from 'node:http'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { call, openHarness } from '../src/api/docker/testing.ts'

interface Row {
  readonly bench: 'api'
  readonly figure: string
  readonly value: number
  readonly unit: 'ms'
  readonly baseline: number
  readonly ratio: number
}

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    tasks: { type: 'string', default: '1000,10000,30000' },
  },
})
const rounds = 100
const tasksPerService = 100

if (process.env['SKEP_BENCH_API_TASKS'] !== undefined) {
  await serve(Number(process.env['SKEP_BENCH_API_TASKS']))
} else await measure()

/** The API over a store with so many tasks, half of them in one service, in a process of its own. */
async function serve(tasks: number): Promise<void> {
  const harness = await openHarness()
  const create = async (name: string, replicas: number) => {
    const answer = await call(harness, 'POST', '/services/create', {
      Name: name,
      Labels: { 'com.docker.stack.namespace': 'bench' },
      TaskTemplate: { ContainerSpec: { Image: 'nginx:1.25', Env: ['A=b', 'C=d'] } },
      Mode: { Replicated: { Replicas: replicas } },
    })
    if (answer.status !== 201) throw new Error(answer.text)
  }
  await create('big', tasks / 2)
  for (let made = 0; made < tasks / 2; made += tasksPerService) {
    await create(`small${made}`, Math.min(tasksPerService, tasks / 2 - made))
  }
  await harness.settled()
  const calls = [
    { figure: 'service ls', path: '/services?status=true' },
    { figure: 'service ps', path: filtered({ service: ['small0'] }) },
    { figure: 'service ps of half the tasks', path: filtered({ service: ['big'] }) },
  ]
  const ready = new Map<string, Buffer>()
  for (const { path } of calls) {
    ready.set(path, Buffer.from((await call(harness, 'GET', path)).text))
  }
  const baseline = createServer((incoming, response) => response.end(ready.get(incoming.url ?? '')))
  const baselinePath = join(harness.socketPath, '../baseline.sock')
  baseline.listen(baselinePath, () => {
    process.send?.({ socketPath: harness.socketPath, baselinePath, calls })
  })
  process.on('disconnect', () => {
    baseline.close()
    void harness.close().then(() => process.exit())
  })
}

function filtered(filters: object): string {
  return `/tasks?filters=${encodeURIComponent(JSON.stringify(filters))}`
}

interface Ready {
  readonly socketPath: string
  readonly baselinePath: string
  readonly calls: readonly { readonly figure: string; readonly path: string }[]
}

async function measure(): Promise<void> {
  const rows: Row[] = []
  for (const tasks of values.tasks.split(',').map(Number)) {
    const child = fork(import.meta.filename, [], {
      env: { ...process.env, SKEP_BENCH_API_TASKS: String(tasks) },
    })
    const { socketPath, baselinePath, calls } = await new Promise<Ready>((resolve) =>
      child.once('message', (message) => resolve(message as Ready)),
    )
    for (const { figure, path } of calls) {
      const value = await p99Of(socketPath, path)
      const baseline = await p99Of(baselinePath, path)
      rows.push({
        bench: 'api',
        figure: `${figure}, ${tasks} tasks, p99`,
        value: round(value),
        unit: 'ms',
        baseline: round(baseline),
        ratio: round(value / baseline),
      })
    }
    child.disconnect()
    await new Promise((resolve) => child.once('exit', resolve))
  }
  if (values.json) for (const row of rows) console.log(JSON.stringify(row))
  else console.table(rows)
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

async function p99Of(socketPath: string, path: string): Promise<number> {
  const timesMs: number[] = []
  for (let i = 0; i < rounds; i++) {
    const begin = performance.now()
    await get(socketPath, path)
    timesMs.push(performance.now() - begin)
  }
  timesMs.sort((a, b) => a - b)
  return timesMs[Math.ceil(rounds * 0.99) - 1] ?? 0
}

/** Reads the whole answer and drops it. */
function get(socketPath: string, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    request({ socketPath, path }, (answer) => {
      answer.resume()
      answer.once('end', resolve)
    })
      .once('error', reject)
      .end()
  })
}
