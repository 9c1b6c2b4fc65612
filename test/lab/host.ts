import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, open, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { dockerClients, eventually, type Output, run, sharedEngine } from '../support/daemon.ts'
import { removeCgroup } from './cgroups.ts'
import { endInit, enter, initOf, must, startInit } from './namespaces.ts'

const skep = resolve(import.meta.dirname, '../../bin/skep')
const hostsNamed = 64

/** What hosts of one lab share. */
export interface LabPlan {
  /** Names cgroup and devices on this machine: `skl7`. */
  readonly name: string
  readonly folder: string
  /** `198.18.7` */
  readonly prefix: string
  readonly isKept: boolean
}

/**
 * A Docker host: process, network, mount, host-name and IPC namespaces with an engine of its own, and `skep daemon` where
 * wanted. Its sockets are in reach from everywhere on this machine. All state is on disk, so that any process can take
 * hold of it.
 */
export class LabHost {
  readonly number: number
  readonly name: string
  readonly folder: string
  readonly #plan: LabPlan

  constructor(plan: LabPlan, number: number) {
    this.#plan = plan
    this.number = number
    this.name = `node${number}`
    this.folder = join(plan.folder, `${number}`)
  }

  get address(): string {
    const path = this.#addressPath
    const moved = existsSync(path) ? readFileSync(path, 'utf8') : ''
    return moved || `${this.#plan.prefix}.${this.number}`
  }

  get #addressPath(): string {
    return join(this.folder, 'address')
  }

  /** The host is in the same network by another address from now on; connections of the old one are dead. */
  async changeAddress(lastByte: number): Promise<void> {
    const before = this.address
    await writeFile(this.#addressPath, `${this.#plan.prefix}.${lastByte}`)
    await this.must('ip', 'address', 'del', `${before}/24`, 'dev', 'eth0')
    await this.#setAddress()
  }

  /** The engine's address, `unix://…`. */
  get engine(): string {
    return `unix://${this.folder}/engine.sock`
  }

  /** The API of the host's `skep daemon`, `unix://…`. */
  get api(): string {
    return `unix://${this.folder}/skep.sock`
  }

  /** Where the daemon's metrics and health are served. */
  get http(): string {
    return `${this.address}:7780`
  }

  get isOn(): boolean {
    return initOf(this.folder) !== undefined
  }

  /** Pid of the host's first process, as this machine counts. */
  get pid(): number {
    const pid = initOf(this.folder)
    if (pid === undefined) throw new Error(`${this.name} is off`)
    return pid
  }

  /** Command words that run what follows them on this host. */
  inside(): readonly string[] {
    return enter('host', this.folder)
  }

  /** Runs a program on this host to its end. */
  run(...words: readonly string[]): Promise<Output> {
    const [command = '', ...args] = [...this.inside(), ...words]
    return run(command, args, { timeoutMs: 120_000 })
  }

  /** As `run`, and throws when it fails. Resolves with its standard output, trimmed. */
  async must(...words: readonly string[]): Promise<string> {
    return (await must([...this.inside(), ...words])).trim()
  }

  /** The stock client against this host's engine. */
  docker(...args: readonly string[]): Promise<Output> {
    return this.#client(this.engine, args)
  }

  async dockerOk(...args: readonly string[]): Promise<string> {
    return okay(await this.docker(...args), args)
  }

  /** The stock client against this host's `skep daemon`. */
  skepDocker(...args: readonly string[]): Promise<Output> {
    return this.#client(this.api, args)
  }

  async skepDockerOk(...args: readonly string[]): Promise<string> {
    return okay(await this.skepDocker(...args), args)
  }

  /** Skep's own command line against this host's daemon. */
  skep(...args: readonly string[]): Promise<Output> {
    return run(skep, args, { env: { SKEP_HOST: this.api }, timeoutMs: 120_000 })
  }

  #client(address: string, args: readonly string[]): Promise<Output> {
    const [client = 'docker'] = dockerClients()
    return run(client, ['-H', address, ...args], { timeoutMs: 120_000 })
  }

  /** Copies images of the machine's shared engine. */
  async loadImages(...images: readonly string[]): Promise<void> {
    const from = `docker -H ${sharedEngine} save ${images.join(' ')}`
    await must(['bash', '-o', 'pipefail', '-c', `${from} | docker -H ${this.engine} load`])
  }

  // Power

  /** Power on, with the disk as it was. The engine runs when this resolves; a daemon is not started. */
  async powerOn(): Promise<void> {
    if (this.isOn) return
    await mkdir(this.folder, { recursive: true })
    const { prefix, isKept } = this.#plan
    const hosts = ['127.0.0.1 localhost']
    for (let number = 1; number <= hostsNamed; number++) {
      hosts.push(`${prefix}.${number} node${number}`)
    }
    await writeFile(join(this.folder, 'etc-hosts'), `${hosts.join('\n')}\n`)
    // Nothing answers there: unknown names fail at once, not after a time.
    await writeFile(join(this.folder, 'resolv.conf'), `nameserver ${prefix}.254\n`)
    await startInit('host', { folder: this.folder, hostname: this.name, isKept })
    await this.#plugIn()
    await this.startEngine()
  }

  /** The cable to the fabric. */
  async #plugIn(): Promise<void> {
    const fabric = enter('cable', join(this.#plan.folder, 'fabric'))
    const port = `h${this.number}`
    // A card keeps its address over a restart: others have it in their caches.
    const mac = `02:4c:41:42:01:${this.number.toString(16).padStart(2, '0')}`
    await must([
      ...[...fabric, 'ip', 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0'],
      ...['address', mac, 'netns', `${this.pid}`],
    ])
    await must([...fabric, 'ip', 'link', 'set', port, 'master', 'br0', 'up'])
    await this.must('ip', 'link', 'set', 'eth0', 'up')
    await this.#setAddress()
  }

  async #setAddress(): Promise<void> {
    await this.must('ip', 'address', 'add', `${this.address}/24`, 'dev', 'eth0')
    await this.must('ip', 'route', 'replace', 'default', 'via', `${this.#plan.prefix}.254`)
  }

  /** Everything on this host ends at once, as when its plug is pulled. */
  async powerOff(): Promise<void> {
    const fabric = join(this.#plan.folder, 'fabric')
    if (initOf(fabric) !== undefined) {
      // A network namespace answers for a while after its last process.
      const [command = '', ...inside] = enter('cable', fabric)
      await run(command, [...inside, 'ip', 'link', 'del', `h${this.number}`])
    }
    await endInit(this.folder)
    for (const file of ['engine.sock', 'skep.sock', 'engine.pid', 'daemon.pid']) {
      await rm(join(this.folder, file), { force: true })
    }
    await removeCgroup(`${this.#plan.name}/${this.name}`)
  }

  /** Every process of this host stands still, the kernel and its network go on. */
  async pause(): Promise<void> {
    // -1 is every process of the namespace but the first and the asking one.
    await this.must('bash', '-c', 'kill -STOP -1')
  }

  async resume(): Promise<void> {
    await this.must('bash', '-c', 'kill -CONT -1')
  }

  // The engine

  async startEngine(flags: readonly string[] = []): Promise<void> {
    await rm(join(this.folder, 'engine.pid'), { force: true })
    await this.#startDetached('engine', [
      ...['dockerd', '--data-root', '/var/lib/docker', '--exec-root', '/run/docker'],
      ...['--pidfile', '/run/docker.pid', '-H', 'unix:///run/docker.sock', '-H', this.engine],
      ...['--cgroup-parent', `/${this.#plan.name}/${this.name}`, ...flags],
    ])
    await this.#answers('engine', this.engine)
  }

  async stopEngine(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#end('engine', signal)
    await rm(join(this.folder, 'engine.sock'), { force: true })
  }

  // The daemon

  /** Starts `skep daemon` and waits until its API answers. */
  async startDaemon(flags: readonly string[] = []): Promise<void> {
    await rm(join(this.folder, 'daemon.pid'), { force: true })
    await this.#startDetached('daemon', [
      ...[skep, 'daemon', '--data-root', join(this.folder, 'skep'), '--run-dir', '/run/skep'],
      ...['-H', this.api, '--engine', this.engine, '--http', this.http, ...flags],
    ])
    await this.#answers('daemon', this.api)
  }

  async stopDaemon(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#end('daemon', signal)
  }

  /** `SIGSTOP` and `SIGCONT` pause the daemon alone. */
  async signalDaemon(signal: NodeJS.Signals): Promise<void> {
    await this.#signal('daemon', signal)
  }

  get isDaemonRunning(): boolean {
    return this.#pidOf('daemon') !== undefined && this.isOn
  }

  /** What a program of this host printed. */
  log(of: 'engine' | 'daemon'): string {
    const path = join(this.folder, `${of}.log`)
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }

  /** Starts a program that outlives us; its pid, as the host counts, goes to a file. */
  async #startDetached(name: 'engine' | 'daemon', words: readonly string[]): Promise<void> {
    const log = await open(join(this.folder, `${name}.log`), 'a')
    // The shell between ends at once, so that the host's first process adopts what it started.
    const script = `cd /; setsid bash -c 'echo $$ >"$0"; exec "$@"' "$0" "$@" </dev/null &`
    const [command = '', ...args] = this.inside()
    const pidFile = join(this.folder, `${name}.pid`)
    const child = spawn(command, [...args, 'bash', '-c', script, pidFile, ...words], {
      stdio: ['ignore', log.fd, log.fd],
    })
    const ended = new Promise((done) => child.once('exit', done))
    await log.close()
    const code = await ended
    if (code !== 0) throw new Error(`${this.name}: ${name} did not start: ${this.#lastOf(name)}`)
  }

  async #answers(name: 'engine' | 'daemon', address: string): Promise<void> {
    const socket = address.slice('unix://'.length)
    try {
      await eventually(`the ${name} of ${this.name}`, async () => {
        const pid = this.#pidOf(name)
        if (pid !== undefined && !(await this.#isRunning(pid))) {
          throw new Error(`it ended: ${this.#lastOf(name)}`)
        }
        const ping = ['-sf', '-m', '2', '--unix-socket', socket, 'http://host/_ping']
        return (await run('curl', ping)).code === 0
      })
    } catch (error) {
      throw new Error(`the ${name} of ${this.name}: ${this.#lastOf(name)}`, { cause: error })
    }
  }

  #lastOf(name: 'engine' | 'daemon'): string {
    return this.log(name).slice(-3000)
  }

  #pidOf(name: 'engine' | 'daemon'): number | undefined {
    const path = join(this.folder, `${name}.pid`)
    // Empty for a moment, between being made and being written.
    return (existsSync(path) && Number(readFileSync(path, 'utf8'))) || undefined
  }

  async #isRunning(pid: number): Promise<boolean> {
    return (await this.run('bash', '-c', `kill -0 ${pid}`)).code === 0
  }

  async #signal(name: 'engine' | 'daemon', signal: NodeJS.Signals): Promise<void> {
    const pid = this.#pidOf(name)
    if (pid === undefined) throw new Error(`${this.name}: its ${name} does not run`)
    await this.must('bash', '-c', `kill -${signal.replace('SIG', '')} ${pid}`)
  }

  async #end(name: 'engine' | 'daemon', signal: NodeJS.Signals): Promise<void> {
    const pid = this.#pidOf(name)
    if (pid === undefined || !this.isOn) return
    await this.#signal(name, signal)
    await eventually(
      `the end of the ${name} of ${this.name}`,
      async () => !(await this.#isRunning(pid)),
    )
    await rm(join(this.folder, `${name}.pid`), { force: true })
  }
}

function okay(output: Output, args: readonly string[]): string {
  if (output.code !== 0) throw new Error(`docker ${args.join(' ')}: ${output.stderr}`)
  return output.stdout.trim()
}
