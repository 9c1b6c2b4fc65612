import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { UserError } from '../base/index.ts'
import { idFrom, type NodeId } from '../model/index.ts'
import { buildNode } from '../model/testing.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import { openMemoryStore } from '../store/index.ts'
import type { NodeExamination, PathCounts } from '../wire/index.ts'
import { examineNetworks, judgePath } from './doctor.ts'
import type { NodeRequest } from './messages.ts'
import type { Message, MessageStream } from './transport.ts'

const all = { sender: 0, smallArrived: 3, smallAccepted: 3, largeArrived: 3, largeAccepted: 3 }

describe('the way of packets between two nodes', () => {
  const cases: readonly (readonly [string, Partial<PathCounts>, string | undefined])[] = [
    ['all arrive', {}, undefined],
    ['one in three is lost', { smallArrived: 2, smallAccepted: 2, largeAccepted: 1 }, undefined],
    ['none arrives', { smallArrived: 0, smallAccepted: 0, largeArrived: 0 }, 'lost'],
    ['the firewall drops them', { smallAccepted: 0, largeAccepted: 0 }, 'firewall'],
    ['large ones are lost', { largeArrived: 0, largeAccepted: 0 }, 'mtu'],
  ]
  for (const [name, counts, want] of cases) {
    test(name, () => assert.equal(judgePath({ ...all, ...counts }, 1500)?.type, want))
  }
})

/** Nodes that answer as told. */
async function openCluster(answers: Readonly<Record<string, Partial<NodeExamination>>>) {
  const clock = new VirtualClock()
  const store = await openMemoryStore({ clock })
  const nodes = ['n1', 'n2', 'n3'].map((id, index) =>
    buildNode({ id: idFrom(id), hostname: id, address: `192.0.2.${index + 1}` }),
  )
  await store.commit(nodes.map((object) => ({ type: 'create', object })))
  const port = {
    ask: async (nodeId: NodeId, request: NodeRequest) => {
      const answer = answers[nodeId]
      if (!answer || request.kind !== 'examine') {
        throw new UserError('unavailable', `node ${nodeId} has no session`)
      }
      const examination = { findings: [], driftCount: 0, nowMs: clock.nowMs(), ...answer }
      return {
        stream: streamOf([{ type: 'examined', ...examination }]),
        over: new AbortController().signal,
      }
    },
  }
  const options = { view: store.view, port, clock, random: { below: () => 1 } }
  return { options, nowMs: clock.nowMs() }
}

function streamOf(messages: readonly Message[]): MessageStream {
  const left = [...messages]
  return {
    peer: { type: 'anonymous' },
    remoteAddress: '',
    localAddress: '',
    send: async () => {},
    receive: async () => left.shift(),
    close: () => {},
  }
}

const { signal } = new AbortController()

describe('what is wrong with the nodes’ networks', () => {
  test('each node says it, and one that says nothing is named', async () => {
    const finding = { what: 'a rule was gone', next: 'It was repaired just now.' }
    const { options } = await openCluster({ n1: {}, n2: { findings: [finding], driftCount: 4 } })
    const { nodes, findings } = await examineNetworks(options, signal)
    assert.deepEqual(
      nodes.map(({ name, driftCount }) => [name, driftCount]),
      [
        ['n1', 0],
        ['n2', 4],
        ['n3', 0],
      ],
    )
    assert.deepEqual(
      findings.map(({ node, what }) => `${node}: ${what}`),
      ['n2: a rule was gone', 'n3: node n3 did not say how it is: node n3 has no session'],
    )
  })

  test('of one node and one network only what is about them, and what is about every network', async () => {
    const findings = [
      { what: 'a', next: '', network: 'net' },
      { what: 'b', next: '', network: 'other' },
      { what: 'c', next: '' },
    ]
    const { options } = await openCluster({ n1: { findings }, n2: { findings } })
    const chosen = { ...options, nodes: [idFrom<'node'>('n1')], network: 'net' }
    const report = await examineNetworks(chosen, signal)
    assert.deepEqual(
      report.findings.map(({ node, what }) => `${node} ${what}`),
      ['n1 a', 'n1 c'],
    )
  })

  test('a clock that is off is said', async () => {
    const { options, nowMs } = await openCluster({
      n1: { nowMs: 1_000 },
      n2: {},
      n3: {},
    })
    const { findings } = await examineNetworks(options, signal)
    const behind = ((nowMs - 1_000) / 1000).toFixed(1)
    assert.deepEqual(
      findings.map(({ what }) => what),
      [`its clock is ${behind} s behind that of the asking manager`],
    )
  })
})
