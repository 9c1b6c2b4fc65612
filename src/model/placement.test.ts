import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { UserError } from '../base/index.ts'
import {
  formatConstraint,
  matchesConstraints,
  parseConstraint,
  placementFits,
  platformFits,
} from './placement.ts'
import { buildNode } from './testing.ts'

describe('parseConstraint', () => {
  const good: [string, [string, '==' | '!=', string]][] = [
    ['node.role==worker', ['node.role', '==', 'worker']],
    [' node.labels.zone  !=  east 1 ', ['node.labels.zone', '!=', 'east 1']],
    ['node.ip == 10.0.0.0/8', ['node.ip', '==', '10.0.0.0/8']],
    ['engine.labels.os==ubuntu 14.04', ['engine.labels.os', '==', 'ubuntu 14.04']],
  ]
  for (const [text, [key, operator, value]] of good) {
    test(text, () => assert.deepEqual(parseConstraint(text), { key, operator, value }))
  }

  const bad: [string, string][] = [
    ['node.role', 'constraint expected one operator from ==, !='],
    ['node.role=worker', 'constraint expected one operator from ==, !='],
    ['', 'constraint expected one operator from ==, !='],
    ['==a', "key '' is invalid"],
    ['1abc==a', "key '1abc' is invalid"],
    ['n==a', "key 'n' is invalid"],
    ['node.role==', "value '' is invalid"],
    ['node.role==#worker', "value '#worker' is invalid"],
    ['node.labels.a!=b==c', "key 'node.labels.a!=b' is invalid"],
  ]
  for (const [text, message] of bad) {
    test(`refuses "${text}" with the next step`, () => {
      assert.throws(
        () => parseConstraint(text),
        (error) =>
          error instanceof UserError &&
          error.code === 'invalidInput' &&
          error.message === message &&
          error.next !== undefined,
      )
    })
  }

  test('reads back what it writes', () => {
    const constraint = parseConstraint('node.labels.zone!=a')
    assert.deepEqual(parseConstraint(formatConstraint(constraint)), constraint)
  })
})

describe('matchesConstraints', () => {
  const node = buildNode({
    id: 'abc',
    labels: { Zone: 'East' },
    role: 'manager',
    hostname: 'Web-1',
    address: '10.1.2.3',
    engineLabels: { disk: 'ssd' },
  })
  const cases: [string, boolean][] = [
    ['node.id==abc', true],
    ['node.id==ABC', true],
    ['node.id!=abc', false],
    ['node.hostname==web-1', true],
    ['NODE.ROLE==Manager', true],
    ['node.role==worker', false],
    ['node.role!=worker', true],
    ['node.platform.os==linux', true],
    ['node.platform.arch==x86_64', true],
    ['node.platform.arch==amd64', false],
    ['node.labels.Zone==east', true],
    ['node.labels.zone==east', false],
    ['node.labels.missing!=x', true],
    ['Engine.Labels.disk==SSD', true],
    ['engine.labels.rack==1', false],
    ['node.ip==10.1.2.3', true],
    ['node.ip==10.1.0.0/16', true],
    ['node.ip==10.2.0.0/16', false],
    ['node.ip!=10.2.0.0/16', true],
    ['node.ip==10.1.2.3/', false],
    ['node.ip!=nonsense', false],
    ['node.ip==fe80::1', false],
    ['node.ip!=fe80::/10', true],
    ['node.color==red', false],
    ['node.color!=red', false],
    ['node.labels.==red', false],
  ]
  for (const [text, fits] of cases) {
    test(`${text}: ${fits}`, () =>
      assert.equal(matchesConstraints(node, [parseConstraint(text)]), fits))
  }

  test('all of them must hold', () => {
    const both = ['node.role==manager', 'node.labels.Zone==west'].map(parseConstraint)
    assert.equal(matchesConstraints(node, both), false)
    assert.equal(matchesConstraints(node, []), true)
  })
})

describe('platformFits', () => {
  const own = (architecture: string, os: string) => buildNode({ platform: { architecture, os } })
  const cases = [
    { node: own('x86_64', 'linux'), wanted: [{ architecture: 'amd64', os: 'linux' }], fits: true },
    { node: own('arm64', 'linux'), wanted: [{ architecture: 'aarch64', os: '' }], fits: true },
    { node: own('x86_64', 'linux'), wanted: [{ architecture: 'arm64', os: 'linux' }], fits: false },
    {
      node: own('x86_64', 'linux'),
      wanted: [
        { architecture: 'arm64', os: 'linux' },
        { architecture: '', os: 'linux' },
      ],
      fits: true,
    },
    { node: own('', ''), wanted: [], fits: true },
    { node: own('', ''), wanted: [{ architecture: '', os: '' }], fits: false },
  ]
  for (const { node, wanted, fits } of cases) {
    const { os, architecture } = node.description.platform
    test(`${os}/${architecture} for ${JSON.stringify(wanted)}: ${fits}`, () => {
      assert.equal(platformFits(node, wanted), fits)
    })
  }

  test('placement asks for both constraints and platform', () => {
    const placement = {
      constraints: [parseConstraint('node.role==worker')],
      spread: [],
      maxReplicasPerNode: 0,
      platforms: [{ architecture: 'amd64', os: 'linux' }],
    }
    assert.equal(placementFits(buildNode({ role: 'worker' }), placement), true)
    assert.equal(placementFits(buildNode({ role: 'manager' }), placement), false)
  })
})
