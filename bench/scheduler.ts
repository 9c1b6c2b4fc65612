/**
 * The workloads of SwarmKit's scheduler benchmarks on Skep's scheduler and in-memory store, with the same clock points:
 * from the first commit of nodes and tasks until the last task is seen assigned. Workloads and revisions, which SwarmKit's
 * tasks do without, are stored before; they are in the memory.
 *
 *   node bench/scheduler.ts [--large] [--huge] [--row NAME] [--json]
 *
 * `--large` adds the rows with 100,000 tasks or 100,000 nodes, `--huge` a million tasks on 100,000 nodes. Each row runs
 * in a process of its own, bundled as the program is shipped, so that its peak memory is its own. `per cpu s` counts the
 * processor's time instead of the wall's, for machines with other work on them. SwarmKit's figures (v2.1.1, its best of several runs on a
 * 2-core 2.5 GHz Xeon) are constants here. `own MiB` is the peak without what each process takes before there is a workload (Node.js
 * about 50, a Go program 21); SwarmKit's 50 ms of waiting for quiet is in them, and is nothing the scheduler here does.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type AnyObject, idFrom, type Network } from '../src/model/index.ts'
import {
  buildContainer,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildWorkload,
} from '../src/model/testing.ts'
import { changesFor, Scheduler } from '../src/scheduler/index.ts'
import { changesPerCommitMax, openMemoryStore, type Store } from '../src/store/index.ts'

interface Row {
  readonly name: string
  readonly nodes: number
  readonly tasks: number
  readonly workloads: number
  /** Tasks ask for a network plugin that every third node has. */
  readonly plugin?: boolean
  /** Labels, reservations, constraints, spread and platforms. */
  readonly rich?: boolean
  readonly size: 'small' | 'large' | 'huge'
  /** Tasks a second and MiB of SwarmKit, where it was measured. */
  readonly swarmKit?: { readonly perSecond: number; readonly peakMiB?: number }
}

const rows: readonly Row[] = [
  {
    name: '1kNodes1kTasks',
    nodes: 1e3,
    tasks: 1e3,
    workloads: 1,
    size: 'small',
    swarmKit: { perSecond: 4090, peakMiB: 36 },
  },
  {
    name: '1kNodes10kTasks',
    nodes: 1e3,
    tasks: 1e4,
    workloads: 1,
    size: 'small',
    swarmKit: { perSecond: 6120, peakMiB: 122 },
  },
  {
    name: 'Constraints1kNodes1kTasks',
    nodes: 1e3,
    tasks: 1e3,
    workloads: 1,
    plugin: true,
    size: 'small',
    swarmKit: { perSecond: 3990, peakMiB: 38 },
  },
  {
    name: 'Constraints1kNodes10kTasks',
    nodes: 1e3,
    tasks: 1e4,
    workloads: 1,
    plugin: true,
    size: 'small',
    swarmKit: { perSecond: 5210, peakMiB: 128 },
  },
  {
    name: 'OneOff1kNodes10kTasks',
    nodes: 1e3,
    tasks: 1e4,
    workloads: 1e4,
    size: 'small',
    swarmKit: { perSecond: 6120, peakMiB: 122 },
  },
  {
    name: 'Rich1kNodes10kTasks',
    nodes: 1e3,
    tasks: 1e4,
    workloads: 1,
    rich: true,
    size: 'small',
    swarmKit: { perSecond: 4160, peakMiB: 158 },
  },
  {
    name: '1kNodes100kTasks',
    nodes: 1e3,
    tasks: 1e5,
    workloads: 1,
    size: 'large',
    swarmKit: { perSecond: 4050, peakMiB: 1022 },
  },
  {
    name: '1kNodes1kWorkloads100Tasks',
    nodes: 1e3,
    tasks: 1e5,
    workloads: 1e3,
    size: 'large',
    swarmKit: { perSecond: 5610, peakMiB: 1048 },
  },
  {
    name: 'Rich1kNodes1kWorkloads100Tasks',
    nodes: 1e3,
    tasks: 1e5,
    workloads: 1e3,
    rich: true,
    size: 'large',
    swarmKit: { perSecond: 3310, peakMiB: 1414 },
  },
  {
    name: 'Constraints1kNodes100kTasks',
    nodes: 1e3,
    tasks: 1e5,
    workloads: 1,
    plugin: true,
    size: 'large',
    swarmKit: { perSecond: 3170, peakMiB: 1124 },
  },
  {
    name: 'Constraints5kNodes100kTasks',
    nodes: 5e3,
    tasks: 1e5,
    workloads: 1,
    plugin: true,
    size: 'large',
    swarmKit: { perSecond: 703, peakMiB: 1139 },
  },
  {
    name: '100kNodes1kTasks',
    nodes: 1e5,
    tasks: 1e3,
    workloads: 1,
    size: 'large',
    swarmKit: { perSecond: 27, peakMiB: 445 },
  },
  {
    name: 'OneOff100kNodes1kTasks',
    nodes: 1e5,
    tasks: 1e3,
    workloads: 1e3,
    size: 'large',
    swarmKit: { perSecond: 27, peakMiB: 445 },
  },
  {
    name: '100kNodes100kTasks',
    nodes: 1e5,
    tasks: 1e5,
    workloads: 1,
    size: 'large',
    swarmKit: { perSecond: 3700, peakMiB: 1864 },
  },
  { name: '100kNodes1MTasks', nodes: 1e5, tasks: 1e6, workloads: 1, size: 'huge' },
]

/** What a row's process tells its parent. */
interface Outcome {
  readonly seconds: number
  /** Of the processor, collector included, for the same span. */
  readonly processorSeconds: number
  /** Of that: after the last create commit. */
  readonly placingSeconds: number
  /** Of that: in the scheduler itself, the store's part left out. */
  readonly decidingSeconds: number
  readonly peakMiB: number
}

interface Measured extends Outcome {
  /** Peak of the same process before the first object is made: Node.js and the program. */
  readonly baseMiB: number
}

/** Peak memory of SwarmKit's benchmark with one node and one task, in MiB: what is in its figures whatever the workload. */
const swarmKitBaseMiB = 21

/** What is there before the clock starts, and what its start commits. */
interface Objects {
  readonly before: readonly AnyObject[]
  readonly timed: readonly AnyObject[]
}

function buildObjects(row: Row): Objects {
  const before: AnyObject[] = row.plugin ? [buildPluginNetwork()] : []
  const objects: AnyObject[] = []
  for (let index = 0; index < row.nodes; index++) {
    const plain = buildNode({
      id: randomId(),
      hostname: `name${index}`,
      plugins: index % 3 === 0 ? [{ type: 'Network', name: 'network' }] : [],
    })
    objects.push(
      row.rich
        ? buildNode({
            id: plain.id,
            hostname: plain.name,
            labels: { zone: `z${index % 3}`, disk: index % 2 === 0 ? 'ssd' : 'hdd' },
            nanoCpus: 64e9,
            memoryBytes: 256 * 2 ** 30,
          })
        : plain,
    )
  }
  const template = buildTemplate({
    containers: [buildContainer()],
    ...(row.plugin
      ? { networks: [{ networkId: idFrom('plugin'), aliases: [], driverOptions: {} }] }
      : {}),
    ...(row.rich
      ? {
          reservations: { nanoCpus: 1e8, memoryBytes: 64 * 2 ** 20, generic: [] },
          placement: {
            constraints: [
              { key: 'node.labels.disk', operator: '==', value: 'ssd' },
              { key: 'node.role', operator: '==', value: 'worker' },
            ],
            spread: ['node.labels.zone'],
            platforms: [{ architecture: 'amd64', os: 'linux' }],
          },
        }
      : {}),
  })
  for (let index = 0; index < row.workloads; index++) {
    before.push(
      buildWorkload({
        id: `svc${index}`,
        name: `svc${index}`,
        spec: { revisionId: idFrom(`rev${index}`) },
      }),
      buildRevision({
        id: `rev${index}`,
        workloadId: `svc${index}`,
        name: `svc${index}.1`,
        template,
      }),
    )
  }
  for (let index = 0; index < row.tasks; index++) {
    const workload = index % row.workloads
    objects.push(
      buildTask({
        id: `task${index}`,
        name: `task${index}`,
        workloadId: `svc${workload}`,
        revisionId: `rev${workload}`,
        slot: Math.floor(index / row.workloads) + 1,
        nodeId: undefined,
        state: 'pending',
      }),
    )
  }
  return { before, timed: objects }
}

function buildPluginNetwork(): Network {
  return {
    kind: 'network',
    id: idFrom('plugin'),
    namespace: 'default',
    name: 'plugin',
    labels: {},
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
    source: { dialect: 'docker', document: {} },
    spec: {
      driver: 'network',
      internal: false,
      attachable: false,
      ingress: false,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
    },
    status: {},
  }
}

/** How long a row is measured, in seconds, as by `go test -bench`. */
const benchSeconds = 1

/**
 * As `go test -bench` measured SwarmKit's: once; where that took less than a second, so often that it takes one, and of
 * those the mean. Memory is the peak of the first time, in which nothing of another one is left.
 */
async function repeated(row: Row): Promise<Outcome> {
  const first = await run(row)
  let batch: readonly Outcome[] = [first]
  for (;;) {
    const seconds = batch.reduce((sum, outcome) => sum + outcome.seconds, 0)
    if (seconds >= benchSeconds) break
    const count = Math.ceil((1.2 * benchSeconds * batch.length) / seconds)
    const next: Outcome[] = []
    while (next.length < Math.min(count, 100 * batch.length)) next.push(await run(row))
    batch = next
  }
  const mean = (of: (outcome: Outcome) => number) =>
    batch.reduce((sum, outcome) => sum + of(outcome), 0) / batch.length
  return {
    seconds: mean(({ seconds }) => seconds),
    processorSeconds: mean(({ processorSeconds }) => processorSeconds),
    placingSeconds: mean(({ placingSeconds }) => placingSeconds),
    decidingSeconds: mean(({ decidingSeconds }) => decidingSeconds),
    peakMiB: first.peakMiB,
  }
}

let seed = 1
function randomId(): string {
  let id = ''
  for (let at = 0; at < 25; at++) {
    seed = (seed * 48_271) % 2_147_483_647
    id += (seed % 36).toString(36)
  }
  return id
}

async function run(row: Row): Promise<Outcome> {
  const store = await openMemoryStore({
    clock: { nowMs: () => 0, sleep: async () => {} },
    freeze: false,
  })
  const scheduler = Scheduler.from(store.view)
  let assigned = 0
  let decidingMs = 0
  store.subscribe((commit) => {
    const from = performance.now()
    scheduler.apply(commit)
    decidingMs += performance.now() - from
    for (const { before, after } of commit.changes) {
      if (before?.kind === 'task' && after?.kind === 'task' && after.nodeId !== undefined)
        assigned++
    }
  })
  const create = async (objects: readonly AnyObject[]) => {
    for (let at = 0; at < objects.length; at += changesPerCommitMax) {
      await store.commit(
        objects.slice(at, at + changesPerCommitMax).map((object) => ({ type: 'create', object })),
      )
    }
  }
  const { before, timed } = buildObjects(row)
  await create(before)

  decidingMs = 0
  const processorBefore = process.cpuUsage()
  const startedAt = performance.now()
  await create(timed)
  const createdAt = performance.now()
  while (assigned < row.tasks) {
    const from = performance.now()
    const decision = scheduler.decide(0, changesPerCommitMax)
    const changes = changesFor(store.view, decision, 0)
    decidingMs += performance.now() - from
    if (decision.placements.length === 0)
      throw new Error(`${row.name}: ${assigned} placed, then no more`)
    await store.commit(changes)
  }
  const endedAt = performance.now()
  const { user, system } = process.cpuUsage(processorBefore)
  check(row, store)
  return {
    seconds: (endedAt - startedAt) / 1000,
    processorSeconds: (user + system) / 1e6,
    placingSeconds: (endedAt - createdAt) / 1000,
    decidingSeconds: decidingMs / 1000,
    peakMiB: process.resourceUsage().maxRSS / 1024,
  }
}

/**
 * Speed means nothing unless the placement is right: every task on a node that fits, and each workload even over those
 * nodes, or over the zones where it is spread; workloads of one task even among each other.
 */
function check(row: Row, { view }: Store): void {
  const fitting = [...view.list('node')].filter(
    ({ description, labels }) =>
      (!row.plugin || description.engine.plugins.length > 0) &&
      (!row.rich || labels['disk'] === 'ssd'),
  )
  const placeById = new Map(fitting.map(({ id, labels }) => [id, row.rich ? labels['zone'] : id]))
  const places = new Set(placeById.values()).size
  const countsByWorkload = new Map<string, Map<string, number>>()
  for (const task of view.list('task')) {
    const place = task.nodeId && placeById.get(task.nodeId)
    if (place === undefined)
      throw new Error(`${row.name}: ${task.id} is on ${task.nodeId ?? 'no node'}`)
    const group = row.workloads === row.tasks ? 'all' : task.workloadId
    const counts = countsByWorkload.get(group) ?? new Map<string, number>()
    countsByWorkload.set(group, counts.set(place, (counts.get(place) ?? 0) + 1))
  }
  for (const [workload, counts] of countsByWorkload) {
    const sorted = [...counts.values()].sort((a, b) => a - b)
    const least = counts.size < places ? 0 : (sorted[0] ?? 0)
    const most = sorted.at(-1) ?? 0
    if (most - least > 1) throw new Error(`${row.name}: ${workload} is uneven, ${least} to ${most}`)
  }
}

/** This file as one plain module, as the program is shipped. */
async function bundle(directory: string): Promise<string> {
  const { buildSync } = await import('esbuild')
  const outfile = join(directory, 'scheduler.mjs')
  const entryPoints = [fileURLToPath(import.meta.url)]
  const external = ['esbuild']
  buildSync({ entryPoints, outfile, bundle: true, platform: 'node', format: 'esm', external })
  return outfile
}

function measure(row: Row, bundlePath: string): Measured {
  const child = spawnSync(
    process.execPath,
    ['--max-old-space-size=7000', bundlePath, '--measure', row.name],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  )
  if (child.status !== 0) throw new Error(`${row.name} failed`)
  const outcome: Measured = JSON.parse(child.stdout)
  return outcome
}

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    large: { type: 'boolean', default: false },
    huge: { type: 'boolean', default: false },
    row: { type: 'string' },
    measure: { type: 'string' },
  },
})

if (values.measure !== undefined) {
  const row = rows.find(({ name }) => name === values.measure)
  if (!row) throw new Error(`there is no row ${values.measure}`)
  const baseMiB = process.resourceUsage().maxRSS / 1024
  console.log(JSON.stringify({ ...(await repeated(row)), baseMiB }))
} else {
  const wanted = rows.filter(({ name, size }) =>
    values.row !== undefined
      ? name === values.row
      : size === 'small' || (size === 'large' && values.large) || (size === 'huge' && values.huge),
  )
  if (wanted.length === 0) {
    console.error(
      `no row is named ${values.row}; there are ${rows.map(({ name }) => name).join(', ')}`,
    )
    process.exitCode = 2
  }
  if (!values.json) {
    console.log(`${cpus().length} x ${cpus()[0]?.model.trim()}, load ${loadavg()[0]?.toFixed(1)}`)
    console.log(
      line([
        'row',
        'tasks/s',
        'SwarmKit',
        'ratio',
        'per cpu s',
        'placing/s',
        'deciding/s',
        'peak MiB',
        'SwarmKit',
        'own MiB',
        'SwarmKit',
      ]),
    )
  }
  const directory = mkdtempSync(join(tmpdir(), 'skep-scheduler-'))
  const bundlePath = await bundle(directory)
  for (const row of wanted) {
    const { seconds, processorSeconds, placingSeconds, decidingSeconds, peakMiB, baseMiB } =
      measure(row, bundlePath)
    const ownMiB = peakMiB - baseMiB
    const perSecond = row.tasks / seconds
    const { swarmKit } = row
    if (values.json) {
      const figure = (name: string, value: number, unit: string, baseline?: number) =>
        console.log(
          JSON.stringify({
            bench: 'scheduler',
            figure: `${row.name}.${name}`,
            value: round(value),
            unit,
            baseline: baseline ?? null,
            ratio: baseline === undefined ? null : round(value / baseline),
          }),
        )
      figure('rate', perSecond, 'tasks/s', swarmKit?.perSecond)
      figure('rate by processor time', row.tasks / processorSeconds, 'tasks/s')
      figure('placing', row.tasks / placingSeconds, 'tasks/s')
      figure('deciding', row.tasks / decidingSeconds, 'tasks/s')
      figure('peak', peakMiB, 'MiB', swarmKit?.peakMiB)
      figure('peak of the workload', ownMiB, 'MiB', ownOf(swarmKit))
    } else {
      console.log(
        line([
          row.name,
          perSecond.toFixed(0),
          swarmKit?.perSecond.toString() ?? '-',
          swarmKit ? `${(perSecond / swarmKit.perSecond).toFixed(1)}x` : '-',
          (row.tasks / processorSeconds).toFixed(0),
          (row.tasks / placingSeconds).toFixed(0),
          (row.tasks / decidingSeconds).toFixed(0),
          peakMiB.toFixed(0),
          swarmKit?.peakMiB?.toString() ?? '-',
          ownMiB.toFixed(0),
          ownOf(swarmKit)?.toString() ?? '-',
        ]),
      )
    }
  }
  rmSync(directory, { recursive: true })
}

/** What of SwarmKit's peak the workload takes. */
function ownOf(swarmKit: Row['swarmKit']): number | undefined {
  return swarmKit?.peakMiB === undefined ? undefined : swarmKit.peakMiB - swarmKitBaseMiB
}

function line([name = '', ...cells]: readonly string[]): string {
  return name.padEnd(32) + cells.map((cell) => cell.padStart(11)).join('')
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
