import { createSecretKey, randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { silentLog } from '../src/base/index.ts'
import { openRealClock } from '../src/base/real-world.ts'
import { idFrom, noRestarts, type Task } from '../src/model/index.ts'
import { openMemoryStore, openSqliteStore, type Store } from '../src/store/index.ts'

/**
 * Durable commits a second with 1, 10 and 100 concurrent writers, each of which changes one task at a time, as a
 * ratio to appending as many bytes to a file and syncing it after each. Expected: near 1 for one writer (one sync a
 * commit), and many times that for 100, because commits of one moment share a sync.
 *
 *   node bench/store.ts [--json] [--directory DIR] [--ms 2000]
 */
const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    directory: { type: 'string', default: '.' },
    ms: { type: 'string', default: '2000' },
  },
})
const runMs = Number(values.ms)
const clock = openRealClock()
const keys = [{ id: '0123456789abcdef', key: createSecretKey(randomBytes(32)) }]
const directory = mkdtempSync(join(values.directory, 'store-bench-'))

interface Row {
  readonly bench: 'store'
  readonly figure: string
  readonly value: number
  readonly unit: string
  readonly baseline: number | null
  readonly ratio: number | null
}
const rows: Row[] = []

function add(figure: string, unit: string, value: number, baseline?: number): void {
  rows.push({
    bench: 'store',
    figure,
    value: rounded(value),
    unit,
    baseline: baseline === undefined ? null : rounded(baseline),
    ratio: baseline === undefined ? null : rounded(value / baseline),
  })
}

/** A task as the loops keep them. */
function buildTask(id: string): Task {
  return {
    kind: 'task',
    id: idFrom(id.padStart(25, 'x')),
    namespace: 'default',
    name: `web.${id}`,
    labels: {},
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
    workloadId: idFrom(`workload${id.slice(0, 1)}`.padEnd(25, '0')),
    revisionId: idFrom('revision'.padEnd(25, '0')),
    slot: 1,
    nodeId: idFrom('node'.padEnd(25, '0')),
    desiredState: 'running',
    status: {
      state: 'running',
      atMs: 1_790_000_000_000,
      message: 'started',
      container: { containerId: 'c'.repeat(64), pid: 4711 },
      ready: true,
      readyAtMs: 1_790_000_000_000,
      hostPorts: [],
    },
    traffic: 'routable',
    addresses: [
      {
        networkId: idFrom('network'.padEnd(25, '0')),
        address: '10.0.1.7',
        mac: '02:42:0a:00:01:07',
      },
    ],
    genericResources: [],
    restarts: noRestarts,
  }
}

function measureAppends(): number {
  const line = Buffer.from(JSON.stringify(buildTask('0')))
  const file = openSync(join(directory, 'baseline'), 'w')
  const startMs = performance.now()
  let count = 0
  while (performance.now() - startMs < runMs) {
    writeSync(file, line)
    fdatasyncSync(file)
    count += 1
  }
  const perSecond = (count * 1000) / (performance.now() - startMs)
  closeSync(file)
  return perSecond
}

interface Measured {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Each writer changes a task of its own again and again. */
async function measureCommits(store: Store, writers: number): Promise<Measured> {
  const latenciesMs: number[] = []
  const prefix = `${writers}-`
  const ids = await Promise.all(
    Array.from({ length: writers }, async (_, i) => {
      const object = buildTask(`${prefix}${i}`)
      await store.commit([{ type: 'create', object }])
      return object.id
    }),
  )
  const startMs = performance.now()
  await Promise.all(
    ids.map(async (id) => {
      while (performance.now() - startMs < runMs) {
        const object = store.view.get('task', id)
        if (object === undefined) throw new Error('the task is gone')
        const askedMs = performance.now()
        await store.commit([{ type: 'update', object }])
        latenciesMs.push(performance.now() - askedMs)
      }
    }),
  )
  const perSecond = (latenciesMs.length * 1000) / (performance.now() - startMs)
  latenciesMs.sort((a, b) => a - b)
  const at = (share: number): number => latenciesMs[Math.floor(latenciesMs.length * share)] ?? 0
  return { perSecond, p50Ms: at(0.5), p99Ms: at(0.99) }
}

function rounded(value: number): number {
  return Number(value.toPrecision(4))
}

try {
  const path = join(directory, 'data', 'state.db')
  const store = await openSqliteStore({ path, keys, clock, log: silentLog })
  for (const writers of [1, 10, 100]) {
    // Measured right before each, for a disk shared with others is not the same from minute to minute.
    const baseline = measureAppends()
    const { perSecond, p50Ms, p99Ms } = await measureCommits(store, writers)
    const named = counted(writers)
    add(`durable commits, ${named}`, '1/s', perSecond, baseline)
    add(`commit p50, ${named}`, 'ms', p50Ms)
    add(`commit p99, ${named}`, 'ms', p99Ms)
  }
  await store.close()

  const memory = await openMemoryStore({ clock, freeze: false })
  const { perSecond } = await measureCommits(memory, 100)
  await memory.close()
  add('commits in memory, 100 writers', '1/s', perSecond)

  const tasks = 10_000
  const filled = await openSqliteStore({ path, keys, clock, log: silentLog })
  for (let from = 0; from < tasks; from += 1000) {
    await filled.commit(
      Array.from({ length: 1000 }, (_, i) => ({
        type: 'create' as const,
        object: buildTask(`f${from + i}`),
      })),
    )
  }
  await filled.close()
  const startMs = performance.now()
  const opened = await openSqliteStore({ path, keys, clock, log: silentLog })
  add('open with 10,000 tasks', 'ms', performance.now() - startMs)
  await opened.close()
} finally {
  rmSync(directory, { recursive: true })
}

for (const row of rows) {
  if (values.json) {
    console.log(JSON.stringify(row))
    continue
  }
  const against = row.ratio === null ? '' : `${row.ratio}x of ${row.baseline} ${row.unit}`
  console.log(
    `${row.figure.padEnd(32)}${`${row.value} ${row.unit}`.padStart(16)}  ${against}`.trimEnd(),
  )
}

function counted(writers: number): string {
  return writers === 1 ? '1 writer' : `${writers} writers`
}
