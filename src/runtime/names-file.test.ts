import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import { baseContainer, buildAssignment } from './contract.ts'
import { namesFile } from './names-file.ts'

const hostNames =
  'nameserver 192.0.2.1\nsearch old\nsearch corp.example lab.example\noptions edns0\n'

function textFor(
  dns: Partial<typeof baseContainer.dns> = {},
  given: {
    readonly nameservers?: readonly string[]
    readonly mounts?: typeof baseContainer.mounts
    readonly engineNetworks?: ReturnType<typeof buildAssignment>['engineNetworks']
    readonly hostNames?: string
  } = {},
): string | undefined {
  const { mounts = [], engineNetworks = [] } = given
  const container = { ...baseContainer, mounts, dns: { ...baseContainer.dns, ...dns } }
  const file = namesFile(
    buildAssignment({ container, assignment: { engineNetworks } }),
    container,
    { nameservers: given.nameservers ?? ['10.0.1.1'] },
    given.hostNames ?? hostNames,
  )
  assert.equal(file?.target ?? '/etc/resolv.conf', '/etc/resolv.conf')
  return file && Buffer.from(file.data).toString()
}

describe("the file of a task's nameservers", () => {
  test("names the node's resolver, and searches where the host does", () => {
    assert.equal(
      textFor(),
      'nameserver 10.0.1.1\nsearch corp.example lab.example\noptions ndots:0\n',
    )
    assert.equal(textFor({}, { hostNames: '' }), 'nameserver 10.0.1.1\noptions ndots:0\n')
    assert.match(textFor({}, { hostNames: 'domain one.example\n' }) ?? '', /^search one\.example$/m)
  })

  test("the service's own words go first", () => {
    assert.equal(
      textFor({ search: ['a.example'], options: ['timeout:1', 'ndots:2'] }),
      'nameserver 10.0.1.1\nsearch a.example\noptions timeout:1 ndots:2\n',
    )
    assert.doesNotMatch(textFor({ search: ['.'] }) ?? '', /search/)
  })

  test("is the engine's where that one has to be asked, or somebody brings one along", () => {
    assert.equal(textFor({}, { nameservers: [] }), undefined)
    const engineNetworks = [{ networkId: idFrom<'network'>('n'), engineName: 'bridge' }]
    assert.equal(textFor({}, { engineNetworks }), undefined)
    const bind = {
      ...{ nonRecursive: false, createMountpoint: false },
      ...{ readOnlyNonRecursive: false, readOnlyForceRecursive: false },
    }
    const place = { source: '/own', target: '/etc/resolv.conf', readOnly: true }
    const mount = { type: 'bind', ...place, bind } as const
    assert.equal(textFor({}, { mounts: [mount] }), undefined)
  })
})
