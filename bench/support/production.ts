import { mkdtemp, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Output, run } from '../../test/support/daemon.ts'
import type { EngineApi } from '../../test/support/engine-api.ts'
import { at, listAt, numberAt } from '../../test/support/look.ts'
import { until } from './services.ts'

const example = resolve(import.meta.dirname, '../../examples/production')
const stack = 'bench-production'
const volumes = ['db-data', 'redis-data'].map((volume) => `${stack}_${volume}`)

/** The stack of examples/production on the daemon or engine behind `host`, on ports of its own. */
export class ProductionStack implements AsyncDisposable {
  readonly #host: string
  readonly #engine: string
  readonly #folder: string

  private constructor(host: string, engine: string, folder: string) {
    this.#host = host
    this.#engine = engine
    this.#folder = folder
  }

  /** Makes its secrets and labels; nothing runs yet. `engine` is what the containers run on. */
  static async prepare(host: string, engine: string): Promise<ProductionStack> {
    const folder = await mkdtemp('/tmp/skep-production-')
    const production = new ProductionStack(host, engine, folder)
    const [key, certificate] = [join(folder, 'key'), join(folder, 'certificate')]
    const made = await run('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-days', '2', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate],
    ])
    if (made.code !== 0) throw new Error(made.stderr)
    await production.#ok(['secret', 'create', 'site_key', key])
    await production.#ok(['secret', 'create', 'site_certificate', certificate])
    await production.#ok(['secret', 'create', 'db_password', '-'], 'bench-password')
    await production.#ok(['secret', 'create', 'api_key', '-'], 'bench-key')
    const node = await production.#ok(['node', 'ls', '-q'])
    await production.#ok(['node', 'update', '--label-add', 'apps=yes', node.trim()])
    return production
  }

  async deploy(): Promise<void> {
    const file = join(example, 'production-stack.yml')
    await this.#ok(['stack', 'deploy', '--resolve-image', 'never', '-c', file, stack])
  }

  /** Waits until all services have what they declare. */
  async untilConverged(api: EngineApi, withinMs?: number): Promise<void> {
    const look = async () => {
      const services = listAt(await api.ok('GET', '/services?status=true'))
      return (
        services.length === 4 &&
        services.every(
          (service) =>
            numberAt(service, 'ServiceStatus', 'RunningTasks') ===
            numberAt(at(service, 'ServiceStatus'), 'DesiredTasks'),
        )
      )
    }
    await until('the production stack', look, withinMs)
  }

  /** Removes the stack and its data, so that the next one starts from nothing. */
  async remove(): Promise<void> {
    await this.#docker(['stack', 'rm', stack])
    await until('the volumes to be free', async () => {
      const output = await run('docker', ['-H', this.#engine, 'volume', 'rm', '-f', ...volumes])
      return output.code === 0
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove()
    await rm(this.#folder, { recursive: true, force: true })
  }

  #docker(args: readonly string[], input?: string): Promise<Output> {
    return run('docker', ['-H', this.#host, ...args], {
      env: { HTTP_PORT: '18941', HTTPS_PORT: '18942' },
      ...(input === undefined ? {} : { input }),
      timeoutMs: 120_000,
    })
  }

  async #ok(args: readonly string[], input?: string): Promise<string> {
    const output = await this.#docker(args, input)
    if (output.code !== 0) throw new Error(`docker ${args.join(' ')}: ${output.stderr}`)
    return output.stdout
  }
}
