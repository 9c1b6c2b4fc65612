import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ContainerSpec, idFrom } from '../model/index.ts'
import { buildAssignment, buildMaterials } from './contract.ts'
import { filesOf, renderContainer, templateContextOf } from './task-words.ts'

const bytes = (text: string) => new TextEncoder().encode(text)
const secretId = idFrom<'secret'>('s1')
const configId = idFrom<'config'>('c1')

function files(
  container: Partial<ContainerSpec>,
  data: { secret?: string; config?: string; templating?: string } = {},
) {
  const assignment = buildAssignment({ container })
  const template = data.templating === undefined ? {} : { templating: data.templating }
  const materials = buildMaterials({
    clusterId: 'c',
    secrets: new Map([
      [secretId, { id: secretId, name: 'pw', data: bytes(data.secret ?? 'hunter2'), ...template }],
    ]),
    configs: new Map([
      [configId, { id: configId, name: 'cfg', data: bytes(data.config ?? 'x=1'), ...template }],
    ]),
  })
  const context = templateContextOf(assignment, materials.assignments.node)
  const [declared] = assignment.template.containers
  assert.ok(declared)
  return filesOf(renderContainer(declared, context), materials, context)
}
const secret = (target: string, more: object = {}) =>
  ({
    type: 'file',
    id: secretId,
    name: 'pw',
    target,
    uid: '0',
    gid: '0',
    mode: 0o444,
    ...more,
  }) as const
const config = (target: string, more: object = {}) =>
  ({
    type: 'file',
    id: configId,
    name: 'cfg',
    target,
    uid: '0',
    gid: '0',
    mode: 0o444,
    ...more,
  }) as const

describe('filesOf', () => {
  test('puts secrets below /run/secrets and configs below /, unless told an absolute place', () => {
    const placed = files({
      secrets: [secret('a'), secret('/etc/b'), secret('d/e')],
      configs: [config('c.ini'), config('/etc/c.ini', { uid: '5', gid: '6', mode: 0o400 })],
    })
    assert.deepEqual(
      placed.map(({ target, uid, gid, mode }) => [target, uid, gid, mode]),
      [
        ['/run/secrets/a', 0, 0, 0o444],
        ['/etc/b', 0, 0, 0o444],
        ['/run/secrets/d/e', 0, 0, 0o444],
        ['/c.ini', 0, 0, 0o444],
        ['/etc/c.ini', 5, 6, 0o400],
      ],
    )
  })

  test('fills templates in, of secrets and of configs that ask for one', () => {
    const [first, second] = files(
      { secrets: [secret('pw')], configs: [config('c')], env: ['WHO={{.Service.Name}}'] },
      {
        secret: 's {{.Node.Hostname}}',
        config: '{{secret "pw"}} {{env "WHO"}} {{.Task.Slot}}',
        templating: 'golang',
      },
    )
    assert.equal(Buffer.from(first?.data ?? []).toString(), 's host-1')
    assert.equal(Buffer.from(second?.data ?? []).toString(), 's {{.Node.Hostname}} rt-web 1')
  })

  test('a failing template of a secret does not show what is in it', () => {
    assert.throws(
      () =>
        files({ secrets: [secret('a')] }, { secret: '{{"hunter2" | nope}}', templating: 'golang' }),
      (error: Error) => {
        assert.match(error.message, /^secret "pw"/)
        assert.doesNotMatch(`${error.stack} ${JSON.stringify(error.cause)}`, /hunter2/)
        return true
      },
    )
  })

  for (const [what, container, code] of [
    ['two files at one place', { secrets: [secret('/x')], configs: [config('x')] }, 'invalidInput'],
    ['a way out of /run/secrets', { secrets: [secret('../../etc/passwd')] }, 'invalidInput'],
    ['no file name', { secrets: [secret('')] }, 'invalidInput'],
    ['a user by name', { secrets: [secret('a', { uid: 'root' })] }, 'invalidInput'],
    ['one that is not here yet', { secrets: [secret('a', { id: 'other' })] }, 'unavailable'],
  ] as const) {
    test(`refuses ${what}`, () => assert.throws(() => files(container), { code }))
  }
})

describe('renderContainer', () => {
  test('fills in hostname, env and mounts', () => {
    const assignment = buildAssignment({
      container: {
        hostname: '{{.Service.Name}}-{{.Task.Slot}}',
        env: ['N={{.Node.Hostname}}'],
        mounts: [
          {
            type: 'volume',
            source: 'data-{{.Task.Slot}}',
            target: '/{{.Service.Name}}',
            readOnly: false,
            volume: {
              noCopy: false,
              labels: { node: '{{.Node.ID}}' },
              driver: { name: 'local', options: { o: '{{.Task.ID}}' } },
            },
          },
        ],
      },
    })
    const [declared] = assignment.template.containers
    assert.ok(declared)
    const { node } = buildMaterials({ clusterId: 'c' }).assignments
    const rendered = renderContainer(declared, templateContextOf(assignment, node))
    assert.equal(rendered.hostname, 'rt-web-1')
    assert.deepEqual(rendered.env, ['N=host-1'])
    const [mount] = rendered.mounts
    assert.ok(mount?.type === 'volume')
    assert.deepEqual([mount.source, mount.target], ['data-1', '/rt-web'])
    assert.deepEqual(mount.volume.labels, { node: node.id })
    assert.deepEqual(mount.volume.driver?.options, { o: assignment.task.id })
  })
})
