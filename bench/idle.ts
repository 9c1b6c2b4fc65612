/**
 * What the daemon takes at rest with examples/production running: memory and processor time, its name server's too; and
 * how long it takes from its start until it answers, with that stack in its store.
 *
 *   node bench/idle.ts [--json] [--rounds 3]
 */
import { readdirSync, readFileSync } from 'node:fs'
import { sharedEngine, startDaemon } from '../test/support/daemon.ts'
import { EngineApi } from '../test/support/engine-api.ts'
import { ProductionStack } from './support/production.ts'
import { median, Report, readOptions, secondsOf } from './support/rows.ts'

const { json, rounds } = readOptions(3)
const report = new Report('idle', json)
const settleMs = 15_000
const watchMs = 30_000
const ticksPerSecond = 100

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms))

function memoryMib(pid: number): number {
  const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line?.[1]) / 1024
}

/** Processor seconds of a process so far, user and system. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** The name server of a daemon: it outlives it, so it is found by the folder it serves. */
function resolverOf(folder: string): number | undefined {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      if (command.includes('resolver') && command.includes(folder)) return Number(pid)
    } catch {
      // Ended meanwhile.
    }
  }
  return undefined
}

await using daemon = await startDaemon()
const api = new EngineApi(daemon.host)
try {
  await using production = await ProductionStack.prepare(daemon.host, sharedEngine)
  await production.deploy()
  await production.untilConverged(api)
  const readySeconds: number[] = []
  for (let round = 0; round < rounds; round++) {
    await daemon.stop()
    readySeconds.push(await secondsOf(() => daemon.start()))
  }
  await pause(settleMs)
  const pid = daemon.pid()
  const resolver = resolverOf(daemon.folder)
  const before = { daemon: processorSeconds(pid), resolver: resolver && processorSeconds(resolver) }
  const startedMs = performance.now()
  await pause(watchMs)
  const seconds = (performance.now() - startedMs) / 1000
  const share = (processorSeconds(pid) - before.daemon) / seconds
  report.add('memory of the daemon (RSS)', 'MiB', memoryMib(pid))
  report.add('processor time of the daemon', '% of a core', share * 100)
  if (resolver !== undefined && before.resolver !== undefined) {
    report.add('memory of its name server (RSS)', 'MiB', memoryMib(resolver))
    const its = (processorSeconds(resolver) - before.resolver) / seconds
    report.add('processor time of its name server', '% of a core', its * 100)
  } else report.skip('its name server', 'none was found')
  report.add('start until ready', 'ms', median(readySeconds) * 1000)
} finally {
  api.close()
}
