import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { ComposeService, FileObjectSource, Project } from '../compose/index.ts'
import { readServiceFiles } from './files.ts'

const files: Readonly<Record<string, string>> = { '/shop/key': 'from file' }

function read(service: ComposeService, source: FileObjectSource) {
  const project: Project = {
    name: 'shop',
    workingDirectory: '/shop',
    files: [],
    environment: { KEY: 'from variable' },
    services: {},
    disabledServices: {},
    networks: {},
    volumes: {},
    secrets: { key: { name: 'shop_key', source } },
    configs: { key: { name: 'shop_key', source } },
    models: {},
    profiles: [],
    extensions: {},
  }
  return readServiceFiles(project, 'web', service, async (path) => {
    const text = files[path]
    if (text === undefined) throw Object.assign(new Error('no'), { code: 'ENOENT' })
    return Buffer.from(text)
  })
}

describe('secrets and configs of a service', () => {
  test('a file is bound from where it lies, to the place its kind has', async () => {
    const source = { type: 'file', path: '/shop/key' } as const
    const secret = await read({ secrets: [{ source: 'key' }] }, source)
    assert.deepEqual(secret.mounts, [{ path: '/shop/key', target: '/run/secrets/key' }])
    const config = await read({ configs: [{ source: 'key', target: '/etc/k' }] }, source)
    assert.deepEqual(config.mounts, [{ path: '/shop/key', target: '/etc/k' }])
  })

  test('what has an owner or mode, or no file, is copied in', async () => {
    const file = { type: 'file', path: '/shop/key' } as const
    const own = await read({ secrets: [{ source: 'key', uid: '5', mode: 0o400 }] }, file)
    assert.deepEqual(
      own.copies.map(({ target, data, uid, gid, mode }) => [
        target,
        data.toString(),
        uid,
        gid,
        mode,
      ]),
      [['/run/secrets/key', 'from file', 5, 0, 0o400]],
    )
    const variable = await read(
      { configs: [{ source: 'key' }] },
      { type: 'environment', variable: 'KEY' },
    )
    assert.deepEqual(
      variable.copies.map(({ target, data, mode }) => [target, data.toString(), mode]),
      [['/key', 'from variable', 0o444]],
    )
  })

  test('content counts for the hash, and is not in it in clear', async () => {
    const service = { secrets: [{ source: 'key' }] }
    const one = await read(service, { type: 'content', content: 'one' })
    const other = await read(service, { type: 'content', content: 'other' })
    assert.notDeepEqual(one.contents, other.contents)
    assert.equal(JSON.stringify(one.contents).includes('one'), false)
  })

  test('what is missing or kept elsewhere is told, with the name of the variable or file', async () => {
    const service = { secrets: [{ source: 'key' }] }
    await assert.rejects(read(service, { type: 'environment', variable: 'NO' }), /variable NO/)
    await assert.rejects(read(service, { type: 'file', path: '/shop/no' }), /\/shop\/no/)
    await assert.rejects(read(service, { type: 'external' }), /kept by a cluster/)
    await assert.rejects(
      read({ ...service, readOnly: true }, { type: 'content', content: 'x' }),
      /read_only/,
    )
  })
})
