import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import { buildTask } from '../model/testing.ts'
import { decideListening, portsAwaited } from './listening.ts'

const address = { networkId: idFrom<'network'>('net'), address: '10.0.1.5', mac: '' }
const onNetwork = { ...buildTask({}), addresses: [address] }
const alone = { ...buildTask({}), addresses: [] }

describe('what a task is waited for to listen on', () => {
  const cases = [
    {
      name: 'the ports that its endpoints publish, and none besides',
      task: onNetwork,
      endpointPorts: [
        { protocol: 'tcp', port: 80 },
        { protocol: 'udp', port: 53 },
      ],
      want: { ports: [{ protocol: 'tcp', port: 80 }], by: 'endpoints' },
    },
    {
      name: 'without those, what its image exposes',
      task: onNetwork,
      endpointPorts: [],
      want: { ports: [{ port: 8080 }, { port: 9090 }], by: 'image' },
    },
    {
      name: 'where nobody can reach it, nothing',
      task: alone,
      endpointPorts: [],
      want: { ports: [], by: 'endpoints' },
    },
    {
      name: 'its endpoints publish udp alone: nothing',
      task: onNetwork,
      endpointPorts: [{ protocol: 'udp', port: 53 }],
      want: { ports: [], by: 'endpoints' },
    },
  ] as const
  for (const { name, task, endpointPorts, want } of cases) {
    test(name, () => {
      assert.deepEqual(portsAwaited({ task, endpointPorts }, [8080, 9090]), want)
    })
  }
})

describe('the wait for a task to listen', () => {
  const [http, metrics] = [{ port: 8080 }, { port: 9090 }]
  const image = { ports: [http, metrics], by: 'image' } as const
  const endpoints = { ports: [http], by: 'endpoints' } as const

  test('is over when all are listened on', () => {
    assert.deepEqual(decideListening(image, [], 0, 0), { type: 'over' })
    assert.deepEqual(decideListening(endpoints, [], 0, 0), { type: 'over' })
  })

  test('says meanwhile which is silent', () => {
    const wait = { type: 'wait', message: 'starting: nothing listens on port 8080/tcp yet' }
    assert.deepEqual(decideListening(endpoints, [http], 2_999, undefined), wait)
    const both = {
      type: 'wait',
      message: 'starting: nothing listens on port 8080/tcp, 9090/tcp yet',
    }
    assert.deepEqual(decideListening(image, [http, metrics], 9_999, undefined), both)
  })

  test('ends once some are, soon after', () => {
    assert.equal(decideListening(image, [metrics], 2_000, 999).type, 'wait')
    assert.deepEqual(decideListening(image, [metrics], 2_000, 1_000), {
      type: 'over',
      remark: 'nothing listens on port 9090/tcp, which its image exposes',
    })
  })

  test('ends in any case', () => {
    assert.deepEqual(decideListening(endpoints, [http], 3_000, undefined), {
      type: 'over',
      remark: 'nothing listens on port 8080/tcp',
    })
    assert.deepEqual(decideListening(image, [http, metrics], 10_000, undefined), {
      type: 'over',
      remark: 'nothing listens on port 8080/tcp, 9090/tcp, which its image exposes',
    })
  })
})
