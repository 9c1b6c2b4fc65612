/** Several Docker hosts on one machine, each with an engine and, where wanted, `skep daemon`. See docs/lab.md. */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run } from '../support/daemon.ts'
import { makeCgroup, removeCgroup } from './cgroups.ts'
import { type Cut, type Delay, renderCuts } from './faults.ts'
import { LabHost, type LabPlan } from './host.ts'
import { makeTemplate, placeImages, templateFor, usualImages } from './images.ts'
import { endInit, enter, isAlive, markOf, must, type ProcessMark, startInit } from './namespaces.ts'

const labsFolder = '/tmp/skep-lab'
const labsMax = 256

export interface LabOptions {
  readonly hosts: number
  /** Images of the machine's shared engine that each host has from the start. Default: `usualImages`. */
  readonly images?: readonly string[]
  /** Whether each host runs `skep daemon`. Default: no. */
  readonly daemons?: boolean
  readonly daemonFlags?: readonly string[]
  /** Whether the lab outlives this process. Default: it ends with it, however that ends. */
  readonly isKept?: boolean
}

interface LabRecord {
  readonly owner: ProcessMark
  readonly isKept: boolean
}

/** Why there can be no lab here, or undefined. */
export async function whyNoLab(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'needs root'
  for (const program of ['dockerd', 'docker', 'nsenter', 'unshare', 'ip', 'nft', 'curl']) {
    if ((await run('which', [program])).code !== 0) return `needs ${program}`
  }
  const images = await run('docker', ['image', 'inspect', ...usualImages])
  return images.code === 0 ? undefined : `needs the engine with images ${usualImages.join(', ')}`
}

/** Starts a lab. What earlier ones left behind, whose owners are gone, is removed first. */
export async function openLab(options: LabOptions): Promise<Lab> {
  await reapLabs()
  const owner = markOf(process.pid)
  if (!owner) throw new Error('this process has no entry in /proc')
  const record: LabRecord = { owner, isKept: options.isKept ?? false }
  await mkdir(labsFolder, { recursive: true })
  const number = await claimNumber(record)
  const lab = new Lab(number, record)
  try {
    await lab.start(options)
  } catch (error) {
    await lab.down().catch(() => {})
    throw error
  }
  return lab
}

/** Takes hold of a lab that runs. */
export function attachLab(number: number): Lab {
  const record = readRecord(number)
  if (!record) throw new Error(`there is no lab ${number}`)
  return new Lab(number, record)
}

/** Numbers of the labs that run, or lie about. */
export function labNumbers(): readonly number[] {
  if (!existsSync(labsFolder)) return []
  return readdirSync(labsFolder)
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((a, b) => a - b)
}

/** Removes what labs left behind whose owner has ended. Resolves with their numbers. */
export async function reapLabs(): Promise<readonly number[]> {
  const reaped: number[] = []
  for (const number of labNumbers()) {
    const record = readRecord(number)
    if (!record || record.isKept || isAlive(record.owner)) continue
    await new Lab(number, record).down()
    reaped.push(number)
  }
  return reaped
}

function recordPath(number: number): string {
  return join(labsFolder, `${number}.json`)
}

/** The record is written before the folder is made, so that nothing lies about without an owner. */
function readRecord(number: number): LabRecord | undefined {
  const path = recordPath(number)
  const text = existsSync(path) ? readFileSync(path, 'utf8') : ''
  // Empty for a moment, while another process claims the number.
  return text === '' ? undefined : JSON.parse(text)
}

async function claimNumber(record: LabRecord): Promise<number> {
  for (let number = 0; number < labsMax; number++) {
    try {
      await writeFile(recordPath(number), JSON.stringify(record), { flag: 'wx' })
      await mkdir(join(labsFolder, `${number}`), { recursive: true })
      return number
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
  }
  throw new Error(`there are ${labsMax} labs already: end some with node test/lab/lab.ts down all`)
}

export class Lab implements AsyncDisposable {
  readonly number: number
  readonly #plan: LabPlan
  #hosts: readonly LabHost[]

  constructor(number: number, record: LabRecord) {
    this.number = number
    const folder = join(labsFolder, `${number}`)
    // Addresses for benchmarks (RFC 2544): no engine and no cluster gives them out by itself.
    const prefix = `198.18.${number}`
    this.#plan = { name: `skl${number}`, folder, prefix, isKept: record.isKept }
    const numbers = existsSync(folder)
      ? readdirSync(folder).filter((name) => /^\d+$/.test(name))
      : []
    this.#hosts = numbers
      .map(Number)
      .sort((a, b) => a - b)
      .map((host) => new LabHost(this.#plan, host))
  }

  get name(): string {
    return this.#plan.name
  }

  get hosts(): readonly LabHost[] {
    return this.#hosts
  }

  /** Host by number, from 1. */
  host(number: number): LabHost {
    const host = this.#hosts.find((candidate) => candidate.number === number)
    if (!host) throw new Error(`lab ${this.number} has no host ${number}`)
    return host
  }

  /** Used by `openLab`. */
  async start(options: LabOptions): Promise<void> {
    await this.#startFabric()
    await this.addHosts(options.hosts, options)
  }

  /** Adds hosts after those that are there, all at a time. */
  async addHosts(
    count: number,
    options: Pick<LabOptions, 'images' | 'daemons' | 'daemonFlags'> = {},
  ): Promise<readonly LabHost[]> {
    const first = (this.#hosts.at(-1)?.number ?? 0) + 1
    const added = Array.from(
      { length: count },
      (_, index) => new LabHost(this.#plan, first + index),
    )
    this.#hosts = [...this.#hosts, ...added]
    const images = options.images ?? usualImages
    const template = images.length === 0 ? undefined : await templateFor(images)
    const start = async (host: LabHost) => {
      if (template) await placeImages(template, host.folder)
      await host.powerOn()
    }
    const [one] = added
    if (one && template && !existsSync(template)) {
      await one.powerOn()
      await makeTemplate(template, images, one)
    }
    await Promise.all(added.map(start))
    if (options.daemons) {
      await Promise.all(added.map((host) => host.startDaemon(options.daemonFlags)))
    }
    return added
  }

  async #startFabric(): Promise<void> {
    const { folder, prefix, name, isKept } = this.#plan
    const own = join(folder, 'fabric')
    await mkdir(own, { recursive: true })
    await startInit('fabric', { folder: own, hostname: 'fabric', isKept })
    const inside = this.#inFabric()
    const mac = '02:4c:41:42:00:fe' // Else it changes with the ports.
    await must([...inside, 'ip', 'link', 'add', 'br0', 'address', mac, 'type', 'bridge'])
    await must([...inside, 'ip', 'address', 'add', `${prefix}.254/24`, 'dev', 'br0'])
    await must([...inside, 'ip', 'link', 'set', 'br0', 'up'])
    // This machine's own leg: outside of every host.
    const peer = ['peer', 'name', 'root', 'netns', inside[2] ?? '']
    await must(['ip', 'link', 'add', name, 'type', 'veth', ...peer])
    await must([...inside, 'ip', 'link', 'set', 'root', 'master', 'br0', 'up'])
    await must(['ip', 'address', 'add', `${prefix}.253/24`, 'dev', name])
    await must(['ip', 'link', 'set', name, 'up'])
    await makeCgroup(name)
  }

  #inFabric(): readonly string[] {
    return enter('fabric', join(this.#plan.folder, 'fabric'))
  }

  // Cables

  /** Nothing passes between a host and all others, or between two hosts. Carrier stays, as in life. */
  async cut(a: number, b: number | 'any' = 'any'): Promise<void> {
    await this.#setCuts([...this.#cuts(), { from: a, to: b }, { from: b, to: a }])
  }

  /** Frames pass one way only: those from `from` to `to` are lost. */
  async cutOneWay(from: Cut['from'], to: Cut['to']): Promise<void> {
    await this.#setCuts([...this.#cuts(), { from, to }])
  }

  /** Nothing passes between hosts of different groups. */
  async partition(...groups: readonly (readonly number[])[]): Promise<void> {
    const cuts = groups.flatMap((group) =>
      groups
        .filter((other) => other !== group)
        .flatMap((other) => group.flatMap((from) => other.map((to) => ({ from, to })))),
    )
    await this.#setCuts([...this.#cuts(), ...cuts])
  }

  /** Mends every cut, or those of one host. */
  async heal(host?: number): Promise<void> {
    const left = this.#cuts().filter(
      ({ from, to }) => host !== undefined && from !== host && to !== host,
    )
    await this.#setCuts(left)
  }

  #cuts(): readonly Cut[] {
    const path = join(this.#plan.folder, 'cuts.json')
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : []
  }

  async #setCuts(cuts: readonly Cut[]): Promise<void> {
    await must([...this.#inFabric(), 'nft', '-f', '-'], renderCuts(cuts))
    await writeFile(join(this.#plan.folder, 'cuts.json'), JSON.stringify(cuts))
  }

  /** Makes a host's cable slow or lossy, by the kernel's netem or, without it, a program of ours. `undefined` ends it. */
  async delay(host: number, delay: Delay | undefined): Promise<void> {
    await this.#endDelay(host)
    if (!delay) return
    const { delayMs, lossPercent = 0, jitterMs = 0 } = delay
    const inside = this.#inFabric()
    const netem = ['netem', 'delay', `${delayMs}ms`, `${jitterMs}ms`, 'loss', `${lossPercent}%`]
    const [command = '', ...words] = inside
    const port = ['tc', 'qdisc', 'add', 'dev', `h${host}`, 'root']
    const there = await run(command, [...words, ...port, ...netem])
    if (there.code === 0) {
      await this.host(host).must('tc', 'qdisc', 'add', 'dev', 'eth0', 'root', ...netem)
      return
    }
    const wire = await compileWire()
    await must([...inside, 'ip', 'link', 'set', `h${host}`, 'nomaster'])
    const pair = ['type', 'veth', 'peer', 'name', `e${host}`]
    await must([...inside, 'ip', 'link', 'add', `d${host}`, ...pair])
    await must([...inside, 'ip', 'link', 'set', `e${host}`, 'up'])
    await must([...inside, wire, 'offload', `d${host}`, `e${host}`, `h${host}`])
    await this.host(host).must(wire, 'offload', 'eth0')
    const [program = '', ...args] = inside
    const figures = [`${delayMs}`, `${lossPercent}`, `${jitterMs}`]
    // In the fabric's pid namespace: it ends with the fabric at the latest.
    const child = spawn(program, [...args, wire, `h${host}`, `e${host}`, ...figures], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    })
    await new Promise<void>((done, fail) => {
      child.stdout.once('data', () => done())
      child.once('exit', (code) => fail(new Error(`the slow wire ended with ${code}`)))
    })
    child.stdout.destroy()
    child.unref()
    await writeFile(this.#delayPath(host), JSON.stringify(markOf(child.pid ?? 0)))
    await must([...inside, 'ip', 'link', 'set', `d${host}`, 'master', 'br0', 'up'])
  }

  async #endDelay(host: number): Promise<void> {
    const [command = '', ...inside] = this.#inFabric()
    const isOn = this.host(host).isOn
    const gone = await run(command, [...inside, 'tc', 'qdisc', 'del', 'dev', `h${host}`, 'root'])
    if (gone.code === 0 && isOn) {
      await this.host(host).run('tc', 'qdisc', 'del', 'dev', 'eth0', 'root')
    }
    if (!existsSync(this.#delayPath(host))) return
    const mark: ProcessMark = JSON.parse(readFileSync(this.#delayPath(host), 'utf8'))
    if (isAlive(mark)) {
      // nsenter waits for what it runs.
      const children = readFileSync(`/proc/${mark.pid}/task/${mark.pid}/children`, 'utf8')
      for (const pid of children.trim().split(' ')) if (pid !== '') process.kill(Number(pid))
    }
    await run(command, [...inside, 'ip', 'link', 'del', `d${host}`])
    if (isOn) {
      await must([...this.#inFabric(), 'ip', 'link', 'set', `h${host}`, 'master', 'br0'])
    }
    await rm(this.#delayPath(host), { force: true })
  }

  #delayPath(host: number): string {
    return join(this.#plan.folder, `delay-${host}.json`)
  }

  // The end

  /** Ends everything and removes what it made. Works on the remains of a lab, too. */
  async down(): Promise<void> {
    const { folder, name } = this.#plan
    const ended = await Promise.allSettled(this.#hosts.map((host) => host.powerOff()))
    await endInit(join(folder, 'fabric'))
    await run('ip', ['link', 'del', name])
    await removeCgroup(name)
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    for (const result of ended) if (result.status === 'rejected') throw result.reason
    await rm(recordPath(this.number), { force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down()
  }
}

async function compileWire(): Promise<string> {
  const source = join(import.meta.dirname, 'delay-wire.c')
  const program = join(tmpdir(), 'skep-lab', 'delay-wire')
  await must(['gcc', '-O2', '-Wall', '-o', `${program}.${process.pid}`, source])
  await must(['mv', `${program}.${process.pid}`, program])
  return program
}
