import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ClusterNode, idFrom } from '../model/index.ts'
import { buildNode } from '../model/testing.ts'
import { decideRoster } from './roster.ts'

function manager(id: string, over: Partial<NonNullable<ClusterNode['manager']>> = {}): ClusterNode {
  const node = buildNode({ id: idFrom(id) })
  const standing = {
    address: `${id}:2377`,
    leader: false,
    reachability: 'reachable',
    ...over,
  } as const
  return { ...node, spec: { ...node.spec, role: 'manager' }, manager: standing }
}

const leaderId = idFrom<'node'>('a')

describe('the roster of managers', () => {
  test('tells the leader, and who has no session with it', () => {
    const nodes = [manager('a'), manager('b', { leader: true }), manager('c')]
    const isInSession = (id: string) => id === 'b'
    const { changed } = decideRoster(nodes, { leaderId, isEarly: false, isInSession })
    assert.deepEqual(
      changed.map(({ id, manager: standing }) => [id, standing?.leader, standing?.reachability]),
      [
        ['a', true, 'reachable'],
        ['b', false, 'reachable'],
        ['c', false, 'unreachable'],
      ],
    )
  })

  test('calls nobody out of reach who may still be looking for a new leader', () => {
    const nodes = [manager('a', { leader: true }), manager('b')]
    const { changed } = decideRoster(nodes, { leaderId, isEarly: true, isInSession: () => false })
    assert.deepEqual(changed, [])
  })

  test('changes nothing where all is as it is written, and leaves out those that are to be none', () => {
    const demoted = manager('b')
    const nodes = [
      manager('a', { leader: true }),
      { ...demoted, spec: { ...demoted.spec, role: 'worker' as const } },
      buildNode({ id: idFrom('w') }),
    ]
    const decision = decideRoster(nodes, { leaderId, isEarly: false, isInSession: () => true })
    assert.deepEqual(decision.changed, [])
    assert.deepEqual(
      decision.leaving.map(({ id }) => id),
      ['b'],
    )
  })
})
