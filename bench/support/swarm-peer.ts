import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  hostAddress,
  openPrivateEngine,
  type PrivateEngine,
} from '../../test/support/private-engine.ts'

const registry = '127.0.0.1:5000'
const registryConfig = (folder: string) => `version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage:
  filesystem: { rootdirectory: ${folder} }
http:
  addr: ${registry}
`

/** Docker Swarm on an engine of its own, with a registry beside it so that it waits for none. */
export interface SwarmPeer extends AsyncDisposable {
  readonly engine: PrivateEngine
  /** The name by which Swarm gets this image, digest and all. */
  imageOf(image: string): string
}

/** Opens the peer, or resolves with the reason why there can be none. */
export async function openSwarmPeer(images: readonly string[]): Promise<SwarmPeer | string> {
  if (process.getuid?.() !== 0) return 'an engine of its own needs root'
  if (!existsSync('/usr/bin/docker-registry')) {
    return 'there is no docker-registry (apt-get install docker-registry)'
  }
  const engine = await openPrivateEngine('swarm')
  let serving: ChildProcess | undefined
  const digests = new Map<string, string>()
  const close = async () => {
    await engine.ok('swarm', 'leave', '--force').catch(() => '')
    serving?.kill('SIGKILL')
    await engine[Symbol.asyncDispose]()
  }
  try {
    const store = join(engine.folder, 'registry')
    await mkdir(store)
    await writeFile(join(engine.folder, 'registry.yml'), registryConfig(store))
    const [command = '', ...words] = engine.inside()
    serving = spawn(
      command,
      [...words, 'docker-registry', 'serve', join(engine.folder, 'registry.yml')],
      { stdio: 'ignore' },
    )
    if (images.length > 0) await engine.load(...images)
    for (const image of images) {
      const name = `${registry}/${image}`
      await engine.ok('tag', image, name)
      for (let left = 50; (await engine.docker('push', '-q', name)).code !== 0; left--) {
        if (left === 0) throw new Error(`${name} could not be pushed`)
        await new Promise((done) => setTimeout(done, 100))
      }
      digests.set(image, await engine.ok('inspect', '-f', '{{index .RepoDigests 0}}', name))
    }
    await engine.ok('swarm', 'init', '--advertise-addr', hostAddress)
  } catch (error) {
    await close()
    throw error
  }
  return {
    engine,
    imageOf(image) {
      const digest = /@.*$/.exec(digests.get(image) ?? '')?.[0] ?? ''
      return `${registry}/${image}${digest}`
    },
    [Symbol.asyncDispose]: close,
  }
}
