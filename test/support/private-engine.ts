import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isAlive, markOf } from '../lab/namespaces.ts'
import { eventually, type Output, run, sharedEngine } from './daemon.ts'

/** An engine of its own on a host of its own: process, network, mount and host-name namespaces. Needs root. */
export interface PrivateEngine extends AsyncDisposable {
  /** `unix://…`, in reach from everywhere on this machine. */
  readonly address: string
  readonly folder: string
  /** Command words that run what follows them on that host. */
  readonly inside: () => readonly string[]
  docker(...args: readonly string[]): Promise<Output>
  /** As `docker`, and throws when it fails. */
  ok(...args: readonly string[]): Promise<string>
  /** Copies images of the shared engine. */
  load(...images: readonly string[]): Promise<void>
  /** Ends the engine alone; its containers live on only where their shims do. */
  stopEngine(signal: NodeJS.Signals): Promise<void>
  startEngine(): Promise<void>
  /** Every process of that host ends at once. */
  powerOff(): Promise<void>
  /** On again, with the same disk. */
  powerOn(): Promise<void>
}

/** What such a host calls itself on its own cable. */
export const hostAddress = '10.79.0.1'

// The first process of the host: it reaps, and its end is the end of all others. `/run` is new at each start.
const initScript = `
mount --make-rprivate /
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add eth0 type veth peer name eth1 && ip addr add ${hostAddress}/24 dev eth0
ip link set eth1 up && ip link set eth0 up
echo up
while :; do sleep 3600 & wait; done
`

export async function openPrivateEngine(hostname = 'private'): Promise<PrivateEngine> {
  const folder = await mkdtemp('/tmp/skep-engine-')
  const address = `unix://${folder}/docker.sock`
  const logPath = join(folder, 'dockerd.log')
  let init: ChildProcess | undefined
  let initPid = 0
  let engineStarter: ChildProcess | undefined

  const inside = (): readonly string[] => [
    'nsenter',
    '-t',
    `${initPid}`,
    '-m',
    '-u',
    '-i',
    '-n',
    '-p',
  ]

  async function powerOn(): Promise<void> {
    const started = spawn(
      'unshare',
      [
        ...[
          '--mount',
          '--uts',
          '--ipc',
          '--net',
          '--pid',
          '--fork',
          '--kill-child',
          '--mount-proc',
        ],
        ...['bash', '-c', `hostname ${hostname}; ${initScript}`],
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    init = started
    await new Promise<void>((done, fail) => {
      started.stdout.once('data', () => done())
      started.once('exit', (code) => fail(new Error(`the host ended with ${code}`)))
    })
    const children = readFileSync(`/proc/${started.pid}/task/${started.pid}/children`, 'utf8')
    initPid = Number(children.trim().split(' ')[0])
    await startEngine()
  }

  async function startEngine(): Promise<void> {
    await rm(join(folder, 'docker.pid'), { force: true })
    const [command = '', ...words] = inside()
    const log = openSync(logPath, 'a')
    engineStarter = spawn(
      command,
      [
        ...[...words, 'dockerd', '--data-root', join(folder, 'data')],
        ...['--exec-root', '/run/docker', '--pidfile', join(folder, 'docker.pid'), '-H', address],
      ],
      { stdio: ['ignore', log, log] },
    )
    closeSync(log)
    await eventually(`an engine at ${address}`, async () => (await docker('version')).code === 0)
  }

  const docker = (...args: readonly string[]) =>
    run('docker', ['-H', address, ...args], { timeoutMs: 120_000 })

  const engine: PrivateEngine = {
    address,
    folder,
    inside,
    docker,
    async ok(...args) {
      const output = await docker(...args)
      if (output.code !== 0) throw new Error(`docker ${args.join(' ')}: ${output.stderr}`)
      return output.stdout.trim()
    },
    async load(...images) {
      const from = `docker -H ${sharedEngine} save ${images.join(' ')}`
      const output = await run('bash', ['-c', `${from} | docker -H ${address} load`])
      if (output.code !== 0) throw new Error(output.stderr)
    },
    async stopEngine(signal) {
      const starter = engineStarter
      if (!starter || starter.exitCode !== null || starter.signalCode !== null) return
      const ended = new Promise((done) => starter.once('exit', done))
      const pid = readFileSync(join(folder, 'docker.pid'), 'utf8').trim()
      const [command = '', ...words] = inside()
      await run(command, [...words, 'kill', `-${signal.replace('SIG', '')}`, pid])
      await ended
    },
    startEngine,
    async powerOff() {
      const ended = new Promise((done) => init?.once('exit', done))
      const host = markOf(initPid)
      init?.kill('SIGKILL')
      await ended
      // The first process of the host ends after all others: only then nobody holds its disk.
      await eventually('the end of the host', async () => !host || !isAlive(host))
    },
    powerOn,
    async [Symbol.asyncDispose]() {
      const running = init
      if (running && running.exitCode === null && running.signalCode === null) {
        await engine.stopEngine('SIGTERM').catch(() => {})
        await engine.powerOff()
      }
      await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    },
  }
  try {
    await powerOn()
  } catch (error) {
    const text = readFileSync(logPath, 'utf8').slice(-3000)
    await engine[Symbol.asyncDispose]()
    throw new Error(`no private engine: ${text}`, { cause: error })
  }
  return engine
}
