/**
 * Requests that fail while nginx is updated behind its published port: start-first, with a health check, again and
 * again for 20 s under wrk, with kept connections and with one connection a request. The rate stands against the same
 * load without an update.
 *
 *   node bench/update.ts [--json] [--rounds 5] [--seconds 20]
 */
import { parseArgs } from 'node:util'
import { eventually, run, startDaemon, type TestDaemon } from '../test/support/daemon.ts'
import { untilRunning } from '../test/support/look.ts'
import { median, Report } from './support/rows.ts'

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '20' },
  },
})
const rounds = Number(values.rounds)
const seconds = Number(values.seconds)
const report = new Report('update', values.json)
const port = 18943
const name = 'bench-update'
const images = ['nginx:1.24', 'nginx:1.25'] as const

interface Load {
  readonly requests: number
  readonly failed: number
  readonly perSecond: number
}

async function load(forSeconds: number, isKept: boolean): Promise<Load> {
  const { stdout, code } = await run('wrk', [
    ...['-t1', '-c8', `-d${forSeconds}s`, '--timeout', '5s'],
    ...(isKept ? [] : ['-H', 'Connection: close']),
    `http://127.0.0.1:${port}/`,
  ])
  if (code !== 0) throw new Error(`wrk: ${stdout}`)
  const sockets = /connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(stdout) ?? []
  const bad = Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0)
  return {
    requests: Number(/(\d+) requests in/.exec(stdout)?.[1] ?? 0),
    failed: bad + sockets.slice(1).reduce((sum, count) => sum + Number(count), 0),
    perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? 0),
  }
}

/** Updates again as soon as one update is over, until told to end. Resolves with how many there were. */
async function keepUpdating(daemon: TestDaemon, signal: AbortSignal): Promise<number> {
  let updates = 0
  while (!signal.aborted) {
    const to = images[(updates + 1) % 2] ?? images[0]
    await daemon.ok('service', 'update', '-d', '--no-resolve-image', '--image', to, name)
    await untilRunning(daemon, name, 2, { image: to })
    await eventually(
      'the end of the update',
      async () =>
        (await daemon.ok('service', 'inspect', '-f', '{{.UpdateStatus.State}}', name)) ===
        'completed',
    )
    updates += 1
  }
  return updates
}

await using daemon = await startDaemon()
await daemon.ok(
  ...['service', 'create', '-d', '--no-resolve-image', '--name', name, '--replicas', '2'],
  ...['-p', `${port}:80`, '--update-order', 'start-first', '--update-monitor', '500ms'],
  ...['--health-cmd', 'curl -fsS http://127.0.0.1/', '--health-interval', '1s', images[0]],
)
await untilRunning(daemon, name, 2)
await eventually('an answer', async () => {
  const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined)
  return answer?.ok
})
for (const isKept of [true, false]) {
  const how = isKept ? 'kept connections' : 'one connection a request'
  const still = await load(Math.min(seconds, 5), isKept)
  const under: Load[] = []
  let updates = 0
  for (let round = 0; round < rounds; round++) {
    const end = new AbortController()
    const updating = keepUpdating(daemon, end.signal)
    under.push(await load(seconds, isKept))
    end.abort()
    updates += await updating
  }
  const sum = (key: keyof Load) => under.reduce((total, one) => total + one[key], 0)
  report.add(`failed requests, ${how}`, 'requests', sum('failed'))
  report.add(`requests sent, ${how}`, 'requests', sum('requests'))
  report.add(`updates meanwhile, ${how}`, 'updates', updates)
  const rate = median(under.map(({ perSecond }) => perSecond))
  report.add(`rate while updating, ${how}`, 'requests/s', rate, still.perSecond)
}
await daemon.ok('service', 'rm', name)
