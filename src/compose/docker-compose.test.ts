import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { corpusEnvironment, corpusNeighbours, readCorpus } from './corpus.testing.ts'
import { loadProject } from './load-project.ts'
import type { ComposeService } from './project.ts'

const classic = '/usr/bin/docker-compose'
/** Files of the corpus that the classic tool knows all keys of; it takes a second for each. */
const lines = [5, 6, 21, 30, 45, 71, 91]

describe('what docker-compose 1.29 makes of a file is what the loader makes of it', {
  skip: !existsSync(classic) && 'docker-compose is not installed',
}, () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'skep-classic-'))
    for (const [path, text] of Object.entries(corpusNeighbours)) {
      const here = join(directory, path)
      await mkdir(dirname(here), { recursive: true })
      await writeFile(here, text)
    }
    await mkdir(join(directory, 'p/a/docker'), { recursive: true })
    await writeFile(join(directory, 'p/a/docker/Dockerfile.dev'), '')
  })
  after(() => rm(directory, { recursive: true, force: true }))

  for (const { name, text } of readCorpus().filter((file) =>
    lines.some((one) => file.name === `line ${one}`),
  )) {
    test(name, async () => {
      const load = async (file: string): Promise<Record<string, ComposeService>> => {
        const { services } = await loadProject({
          directory: join(directory, 'p'),
          files: [file],
          environment: corpusEnvironment,
          profiles: ['*'],
          projectName: 'p',
          readFile: (path) => readFile(path),
          warn: () => {},
        })
        return Object.fromEntries(
          Object.entries(services).map(([key, service]) => [key, comparable(service)]),
        )
      }
      await writeFile(join(directory, 'p/compose.yaml'), text)
      const { stdout } = await promisify(execFile)(
        classic,
        ['--profile', '*', '-f', join(directory, 'p/compose.yaml'), 'config'],
        { env: { PATH: process.env['PATH'], ...corpusEnvironment } },
      )
      await writeFile(join(directory, 'p/classic.yaml'), stdout)
      assert.deepEqual(await load('compose.yaml'), await load('classic.yaml'))
    })
  }
})

/** Without what the classic tool leaves to its defaults, or has put elsewhere. */
function comparable(service: ComposeService): ComposeService {
  const { envFiles: _files, ports, dependsOn, ...rest } = service
  return {
    ...rest,
    ...(ports && {
      ports: ports.map(({ mode = 'ingress', protocol = 'tcp', ...port }) => ({
        ...port,
        mode,
        protocol,
      })),
    }),
    ...(dependsOn && {
      dependsOn: Object.fromEntries(
        Object.entries(dependsOn).map(([name, { condition }]) => [name, { condition }]),
      ),
    }),
  }
}
