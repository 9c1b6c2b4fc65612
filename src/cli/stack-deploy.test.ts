import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import { loadStack, raiseStackFile, readStackFiles } from '../compose/index.ts'
import { openClient } from './client.ts'
import { openFakeDaemon, type RecordedCall } from './fake-daemon.testing.ts'
import { realIo } from './io.ts'
import { deployStack } from './stack-deploy.ts'
import { stackFiles } from './stack-files.testing.ts'
import { planStack } from './stack-plan.ts'

const docker = ['/usr/local/bin/docker', '/usr/bin/docker'].find((path) => existsSync(path))

/** The bodies that made the stack, in an order of their own; without labels of ours, which the stock CLI has no words for. */
function bodiesOf(calls: readonly RecordedCall[]): unknown[] {
  return calls
    .filter(({ method, path }) => method === 'POST' && /\/(create|update)$/.test(path))
    .map(({ path, body }) => sortKeys({ path, body }))
    .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !key.startsWith('skep.'))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sortKeys(item)]),
  )
}

describe('the bodies of a stack equal those of docker stack deploy', {
  skip: docker === undefined && 'there is no docker CLI',
}, () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'skep-stack-'))
    await mkdir(join(directory, 'sub'))
  })
  after(() => rm(directory, { recursive: true, force: true }))

  for (const [name, files] of Object.entries(stackFiles)) {
    test(name, async (t) => {
      const here = await mkdtemp(join(directory, 'stack-'))
      await Promise.all(
        Object.entries(files).map(([file, text]) => writeFile(join(here, file), text)),
      )
      const paths = (await readdir(here))
        .filter((file) => file.endsWith('.yml'))
        .sort()
        .map((file) => join(here, file))
      const env = {
        PATH: process.env['PATH'],
        HOME: '/home/someone',
        FROM_SHELL: 'shell',
        TAG: '1.2',
      }

      const stock = await openFakeDaemon(join(here, 'stock.sock'))
      t.after(() => stock.close())
      await promisify(execFile)(
        docker ?? '',
        [
          '-H',
          `unix://${stock.path}`,
          'stack',
          'deploy',
          ...paths.flatMap((path) => ['-c', path]),
          'st',
        ],
        { env },
      )

      const ours = await openFakeDaemon(join(here, 'ours.sock'))
      t.after(() => ours.close())
      const io = { ...realIo(), env }
      const client = await openClient({ io, host: () => `unix://${ours.path}` })
      const sources = { readFile: (path: string) => readFile(path), env, warn: () => {} }
      const stack = await loadStack('st', paths, sources)
      const plan = await planStack(client, stack, {
        prune: false,
        resolveImage: 'always',
        authFor: async () => undefined,
        readFile: (path) => readFile(path),
        warn: () => {},
      })
      await deployStack(client, plan, { onStep: () => {}, warn: () => {} })
      assert.deepEqual(bodiesOf(ours.calls), bodiesOf(stock.calls))

      const merged = join(here, 'merged.yml')
      await writeFile(merged, stringify(raiseStackFile(await readStackFiles(paths, sources))))
      assert.deepEqual(
        await loadStack('st', [merged], sources),
        stack,
        'as skep stack config tells it',
      )
    })
  }
})
