import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf, silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { openEngine } from '../engine/index.ts'
import type { ContainerSpec } from '../model/index.ts'
import { buildMaterials, type ContractBehaviour, describeRuntimeContract } from './contract.ts'
import { openDockerRuntime } from './docker-runtime.ts'
import { removeSecretsDir } from './task-files.ts'

const clusterId = `rt-${process.pid}`

const containers: Record<ContractBehaviour, Partial<ContainerSpec>> = {
  runs: { args: ['sleep', '1000'], init: true },
  'exits with 3': { args: ['sh', '-c', 'exit 3'] },
  'writes "hello" to stdout and ends with 0': { args: ['echo', 'hello'] },
  'ignores its stop signal': { args: ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done'] },
  'has no image': { image: 'rt-nosuch:img' },
  'cannot start': { args: ['/no/such/program'] },
  'is healthy': {
    args: ['sleep', '1000'],
    init: true,
    health: { test: ['CMD', 'true'] },
  },
  'is not healthy': {
    args: ['sleep', '1000'],
    init: true,
    health: { test: ['CMD-SHELL', 'echo sick; exit 1'] },
  },
}

describeRuntimeContract('the Docker runtime', async () => {
  const engine = openEngine({ address: 'unix:///var/run/docker.sock' })
  try {
    await engine.images.inspect('busybox')
  } catch (error) {
    engine.close()
    return { skip: `needs a Docker Engine with the image busybox: ${messageOf(error)}` }
  }
  const folder = await mkdtemp(join(tmpdir(), 'skep-runtime-'))
  const secretsDir = join(folder, 'secrets')
  const runtime = openDockerRuntime({
    engine,
    clusterId,
    stateDir: join(folder, 'state'),
    secretsDir,
    clock: openRealClock(),
    log: silentLog,
  })
  return {
    runtime,
    materials: buildMaterials({ clusterId }),
    container: (behaviour) => containers[behaviour],
    async close() {
      runtime.close()
      engine.close()
      await removeSecretsDir(secretsDir)
      await rm(folder, { recursive: true, force: true })
    },
  }
})
