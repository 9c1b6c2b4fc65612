/**
 * What it costs to pass an engine call through Skep: time added to a short call, and the rate and memory of a long
 * stream, each against the same call to the engine itself in the same run. Needs a Docker Engine with the image busybox.
 *
 *   node bench/proxy.ts [--json] [--engine unix:///var/run/docker.sock] [--mebibytes 1024]
 */
import { type ChildProcess, fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { Agent, createServer, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { parseArgs } from 'node:util'
import { createEngineProxy } from '../src/api/proxy/index.ts'
import { silentLog } from '../src/base/index.ts'
import { type Engine, openEngine } from '../src/engine/index.ts'

interface Row {
  readonly bench: 'proxy'
  readonly figure: string
  readonly value: number
  readonly unit: string
  readonly baseline: number | null
  readonly ratio: number | null
}

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    engine: { type: 'string', default: 'unix:///var/run/docker.sock' },
    mebibytes: { type: 'string', default: '1024' },
  },
})
const mebibyte = 1024 * 1024
const rounds = 3

if (process.env['SKEP_BENCH_PROXY_SOCKET'] !== undefined)
  serve(process.env['SKEP_BENCH_PROXY_SOCKET'])
else await measure()

/** The proxy in a process of its own, so that its memory is its own. */
function serve(path: string): void {
  const proxy = createEngineProxy({ engineAddress: values.engine, log: silentLog })
  const server = createServer({ requestTimeout: 0 }, proxy.handle)
  server.on('upgrade', proxy.upgrade)
  server.listen(path, () => process.send?.('ready'))
  process.on('disconnect', () => process.exit())
}

async function measure(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'skep-bench-'))
  const socket = join(folder, 'proxy.sock')
  const child = fork(import.meta.filename, process.argv.slice(2), {
    env: { ...process.env, SKEP_BENCH_PROXY_SOCKET: socket },
  })
  await new Promise((resolve) => child.once('message', resolve))
  const direct = openEngine({ address: values.engine })
  const passed = openEngine({ address: `unix://${socket}` })
  const { Id } = await direct.containers.create(`bench-proxy-${process.pid}`, {
    Image: 'busybox',
    Cmd: ['sleep', '3600'],
    HostConfig: { Init: true },
  })
  try {
    await direct.containers.start(Id)
    show(await measureLatency(values.engine.replace('unix://', ''), socket))
    show(await measureStreams(direct, passed, Id, child))
  } finally {
    await direct.containers.remove(Id, { force: true, volumes: true })
    direct.close()
    passed.close()
    child.disconnect()
    await rm(folder, { recursive: true, force: true })
  }
}

async function measureLatency(engineSocket: string, proxySocket: string): Promise<Row[]> {
  const rows: Row[] = []
  for (const path of ['/_ping', '/containers/json']) {
    const engineAgent = new Agent({ keepAlive: true, maxSockets: 1 })
    const proxyAgent = new Agent({ keepAlive: true, maxSockets: 1 })
    const direct: number[] = []
    const passed: number[] = []
    for (let turn = 0; turn < 600; turn++) {
      const directMs = await timeCall(engineAgent, engineSocket, path)
      const passedMs = await timeCall(proxyAgent, proxySocket, path)
      if (turn < 100) continue // until both are warm
      direct.push(directMs)
      passed.push(passedMs)
    }
    engineAgent.destroy()
    proxyAgent.destroy()
    rows.push(row(`GET ${path}, median`, median(passed), 'ms', median(direct)))
    rows.push(row(`GET ${path}, added`, median(passed) - median(direct), 'ms', null))
  }
  return rows
}

function timeCall(agent: Agent, socketPath: string, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const startMs = performance.now()
    request({ agent, socketPath, path: `/v1.41${path}` }, (response) => {
      response.resume().once('end', () => resolve(performance.now() - startMs))
    })
      .once('error', reject)
      .end()
  })
}

async function measureStreams(
  direct: Engine,
  passed: Engine,
  containerId: string,
  child: ChildProcess,
): Promise<Row[]> {
  const count = Number(values.mebibytes)
  // The engine itself is slow at these two, so a part says enough.
  const less = Math.ceil(count / 4)
  await drain(await execOf(direct, containerId, ['truncate', '-s', `${count}M`, '/big']))
  const streams = {
    'exec output': async (engine: Engine) =>
      drain(await execOf(engine, containerId, ['dd', 'if=/dev/zero', 'bs=1M', `count=${less}`])),
    'archive out': async (engine: Engine) =>
      drain(await engine.containers.getArchive(containerId, '/big')),
    'archive in': async (engine: Engine) => {
      await engine.containers.putArchive(containerId, '/tmp', Readable.from(emptyTar(less)))
      return less * mebibyte
    },
  }
  const rows: Row[] = []
  for (const [name, stream] of Object.entries(streams)) {
    const rates = { direct: [] as number[], passed: [] as number[] }
    let peakBytes = 0
    const before = residentBytes(child)
    const watching = setInterval(() => {
      peakBytes = Math.max(peakBytes, residentBytes(child))
    }, 50)
    for (let round = 0; round < rounds; round++) {
      for (const [way, engine] of [
        ['direct', direct],
        ['passed', passed],
      ] as const) {
        const startMs = performance.now()
        const bytes = await stream(engine)
        rates[way].push(bytes / mebibyte / ((performance.now() - startMs) / 1000))
      }
    }
    clearInterval(watching)
    rows.push(row(name, median(rates.passed), 'MiB/s', median(rates.direct)))
    rows.push(row(`${name}, memory grown`, (peakBytes - before) / mebibyte, 'MiB', null))
  }
  return rows
}

async function execOf(engine: Engine, containerId: string, command: readonly string[]) {
  const { Id } = await engine.execs.create(containerId, { Cmd: command, AttachStdout: true })
  return engine.execs.hijack(Id, {})
}

function drain(stream: Readable): Promise<number> {
  return new Promise((resolve, reject) => {
    let bytes = 0
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    stream.once('end', () => resolve(bytes))
    stream.once('error', reject)
  })
}

/** A tar that only has comments of 1 MiB each: read by the engine, written nowhere. */
function* emptyTar(count: number): Generator<Buffer> {
  const header = Buffer.alloc(512)
  header.write('global')
  header.write('0000644\0', 100)
  header.write(`${mebibyte.toString(8).padStart(11, '0')}\0`, 124)
  header.write('00000000000\0', 136)
  header.write('        ', 148)
  header.write('g', 156)
  header.write('ustar\x0000', 257)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  // One record that fills it: "<length> comment=…\n".
  const record = `${mebibyte} comment=`
  const body = Buffer.alloc(mebibyte, 'x')
  body.write(record)
  body.write('\n', mebibyte - 1)
  for (let at = 0; at < count; at++) {
    yield header
    yield body
  }
  yield Buffer.alloc(1024)
}

/** Of the process, from /proc. 0 where there is none. */
function residentBytes(child: ChildProcess): number {
  try {
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function row(figure: string, value: number, unit: string, baseline: number | null): Row {
  const short = (number: number): number => Number(number.toPrecision(4))
  return {
    bench: 'proxy',
    figure,
    value: short(value),
    unit,
    baseline: baseline === null ? null : short(baseline),
    ratio: baseline === null ? null : short(value / baseline),
  }
}

function show(rows: readonly Row[]): void {
  if (values.json) for (const one of rows) console.log(JSON.stringify(one))
  else {
    for (const { figure, value, unit, baseline, ratio } of rows) {
      const against = baseline === null ? '' : `direct ${baseline} ${unit}, ratio ${ratio}`
      console.log(`${figure.padEnd(42)} ${`${value} ${unit}`.padEnd(16)} ${against}`)
    }
  }
}
