import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { openEngine } from '../engine/index.ts'
import { buildAssignment, buildMaterials } from './contract.ts'
import { openDockerRuntime } from './docker-runtime.ts'

test('a container that came to be while its task was given up is removed with the task', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'skep-abort-'))
  const removed: (string | undefined)[] = []
  let creating: ((response: ServerResponse) => void) | undefined
  const isCreating = new Promise<ServerResponse>((resolve) => {
    creating = resolve
  })
  const server = createServer((request, response) => {
    if (request.url === '/_ping') response.setHeader('Api-Version', '1.41').end()
    else if (request.url?.includes('/containers/create')) creating?.(response)
    else if (request.method === 'DELETE') {
      removed.push(request.url)
      response.writeHead(204).end()
    } else response.end('[]')
  })
  const path = join(folder, 'engine.sock')
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const engine = openEngine({ address: `unix://${path}` })
  try {
    const runtime = openDockerRuntime({
      engine,
      clusterId: 'c',
      stateDir: folder,
      secretsDir: folder,
      clock: openRealClock(),
      log: silentLog,
    })
    const assignment = buildAssignment()
    const abort = new AbortController()
    const prepared = runtime.prepare(assignment, buildMaterials({ clusterId: 'c' }), abort.signal)
    const response = await isCreating
    abort.abort(new Error('given up'))
    response.writeHead(201).end('{"Id":"c1"}')
    await assert.rejects(prepared, { message: 'given up' })
    await runtime.remove(assignment.task.id)
    assert.deepEqual(removed, ['/v1.41/containers/c1?force=true&v=true'])
  } finally {
    engine.close()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await rm(folder, { recursive: true })
  }
})
