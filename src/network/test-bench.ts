/** Test support: real containers on a real engine, and probes inside their network namespaces. */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { assert, silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { type Engine, openEngine } from '../engine/index.ts'
import { idFrom, ipv6Of } from '../model/index.ts'
import type { NetworkAssignment } from '../wire/index.ts'
import type { DataPlane, LocalTask } from './data-plane.ts'
import { isDual } from './ipv6-view.ts'
import { openLinuxDataPlane } from './linux-data-plane.ts'
import { listeningPorts } from './open-connections.ts'
import type { ProbeCommand } from './probe-main.ts'
import type { Place } from './test-objects.ts'

const engineSocket = '/var/run/docker.sock'
const serverImage = 'whoami:v1'
const clientImage = 'busybox:latest'

/** Why tests on the real kernel can't run here, or undefined. */
export async function whyNotReal(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'needs root'
  try {
    accessSync(engineSocket)
  } catch {
    return `needs a Docker Engine at ${engineSocket}`
  }
  const engine = openEngine({ address: `unix://${engineSocket}` })
  try {
    for (const image of [serverImage, clientImage]) await engine.images.inspect(image)
    return undefined
  } catch (error) {
    return `needs the engine with images ${serverImage} and ${clientImage}: ${error instanceof Error ? error.message : ''}`
  } finally {
    engine.close()
  }
}

/** A process in a namespace that does what it is told; see `probe-main.ts`. */
export class Probe {
  readonly #child: ChildProcess
  readonly #answers: ((line: string) => void)[] = []
  readonly #lines: Interface

  constructor(enter: readonly string[]) {
    const words = [
      ...enter,
      ...[process.execPath, '--disable-warning=ExperimentalWarning'],
      fileURLToPath(new URL('./probe-main.ts', import.meta.url)),
    ]
    const [program = process.execPath] = words
    this.#child = spawn(program, words.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
    const { stdout } = this.#child
    assert(stdout !== null, 'the probe has an output')
    this.#lines = createInterface({ input: stdout })
    this.#lines.on('line', (line) => this.#answers.shift()?.(line))
  }

  /** What came back; throws with the error's code. */
  async do(command: ProbeCommand): Promise<string> {
    const line = await new Promise<string>((resolve) => {
      this.#answers.push(resolve)
      this.#child.stdin?.write(`${JSON.stringify(command)}\n`)
    })
    const answer: { value?: string; error?: string } = JSON.parse(line)
    if (answer.error !== undefined) throw new Error(answer.error)
    return answer.value ?? ''
  }

  async http(host: string, port: number): Promise<{ hostname: string; peer: string }> {
    return parseWhoami(await this.do({ op: 'http', host, port }))
  }

  async dns(server: string, name: string, type = 'A', transport: 'udp' | 'tcp' = 'udp') {
    const answer: { code: number; data: string[] } = JSON.parse(
      await this.do({ op: 'dns', server, name, type, transport }),
    )
    return answer
  }

  close(): void {
    this.#child.stdin?.end()
    this.#child.kill('SIGKILL')
  }
}

export function parseWhoami(text: string): { hostname: string; peer: string } {
  return {
    hostname: /^hostname: (.*)$/m.exec(text)?.[1]?.trim() ?? '',
    peer: /^peer: (.*):\d+$/m.exec(text)?.[1]?.trim() ?? '',
  }
}

/** A data plane of its own on the real engine. Everything in it is named `<prefix>-…` and removed by `close`. */
export class RealBench {
  readonly prefix: string
  readonly stateDir: string
  readonly engine: Engine
  #plane: DataPlane | undefined
  readonly #containers: string[] = []
  readonly #probes: Probe[] = []
  readonly #closers: (() => Promise<void> | void)[] = []

  private constructor(prefix: string) {
    this.prefix = prefix
    this.stateDir = mkdtempSync(join(tmpdir(), `${prefix}-`))
    this.engine = openEngine({ address: `unix://${engineSocket}` })
  }

  static async open(prefix: string): Promise<RealBench> {
    const bench = new RealBench(prefix)
    await bench.reopen()
    return bench
  }

  get plane(): DataPlane {
    assert(this.#plane !== undefined, 'the bench is open')
    return this.#plane
  }

  /** Another daemon's data plane on the same state. */
  async reopen(): Promise<void> {
    this.#plane = await openLinuxDataPlane({
      engine: this.engine,
      stateDir: this.stateDir,
      clock: openRealClock(),
      log: silentLog,
      tableName: this.prefix,
    })
  }

  /** A network of this bench: `10.<second>.<third>.0/24`. */
  network(name: string, third: number, extra: Partial<NetworkAssignment> = {}): NetworkAssignment {
    return {
      // Its beginning names the bridge.
      id: idFrom(`${this.prefix.replaceAll('-', '')}${third}${name}`.padEnd(25, '0')),
      name: `${this.prefix}-${name}`,
      labels: {},
      subnet: `10.213.${third}.0/24`,
      gateway: `10.213.${third}.1`,
      internal: false,
      attachable: true,
      ingress: false,
      options: {},
      vni: 4096 + third,
      ...extra,
    }
  }

  /** Starts a container with fixed addresses, as the runtime does. */
  async container(
    name: string,
    places: readonly Place[],
    options: { server?: boolean; env?: readonly string[] } = {},
  ): Promise<LocalTask> {
    const fullName = `${this.prefix}-${name}`
    const [first, ...rest] = places
    const networks = places.map(({ network }) => network)
    const { Id } = await this.engine.containers.create(fullName, {
      Image: options.server ? serverImage : clientImage,
      ...(options.server ? {} : { Cmd: ['sleep', '1000'] }),
      Hostname: name,
      Env: options.env ?? [],
      HostConfig: {
        NetworkMode: first?.network.name ?? 'bridge',
        Dns: this.plane.nameserversFor(networks),
      },
      ...(first && {
        NetworkingConfig: {
          EndpointsConfig: {
            [first.network.name]: { IPAMConfig: addressesAt(first) },
          },
        },
      }),
    })
    this.#containers.push(Id)
    for (const { network, address } of rest) {
      await this.engine.networks.connect(network.name, Id, {
        IPAMConfig: addressesAt({ network, address }),
      })
    }
    await this.engine.containers.start(Id)
    const { State } = await this.engine.containers.inspect(Id)
    if (options.server) await untilListening(State.Pid)
    return {
      taskId: idFrom(name.padEnd(25, '0')),
      name: fullName,
      hostname: name,
      pid: State.Pid,
      addresses: places.map(({ network, address }) => ({ networkId: network.id, address })),
      nameservers: [],
    }
  }

  probe(task: { readonly pid: number } | 'host'): Probe {
    return this.probeBy(task === 'host' ? [] : ['nsenter', '-t', `${task.pid}`, '-n'])
  }

  probeBy(enter: readonly string[]): Probe {
    const probe = new Probe(enter)
    this.#probes.push(probe)
    return probe
  }

  onClose(closer: () => Promise<void> | void): void {
    this.#closers.push(closer)
  }

  async removeContainers(): Promise<void> {
    await Promise.all(
      this.#containers
        .splice(0)
        .map((id) =>
          this.engine.containers.remove(id, { force: true, volumes: true }).catch(() => {}),
        ),
    )
  }

  async close(): Promise<void> {
    for (const probe of this.#probes) probe.close()
    for (const closer of this.#closers) await closer()
    await this.removeContainers()
    // A failed test may have left it closed.
    await this.plane.clear().catch(async () => {
      await this.reopen()
      await this.plane.clear()
    })
    await this.plane.close()
    this.engine.close()
    rmSync(this.stateDir, { recursive: true, force: true })
  }
}

/** A container runs before its server listens. */
async function untilListening(pid: number): Promise<void> {
  for (;;) {
    const ports = await listeningPorts(pid)
    assert(ports !== undefined, 'the server runs')
    if (ports.size > 0) return
    await sleep(20)
  }
}

function addressesAt({ network, address }: Place) {
  return {
    IPv4Address: address,
    ...(isDual(network) ? { IPv6Address: ipv6Of(network, address) } : {}),
  }
}
