import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answering, staleFlows } from './flows.ts'
import { countOpen } from './open-connections.ts'

const listing = `udp      17 28 src=10.9.0.2 dst=10.9.0.1 sport=4000 dport=53 src=10.0.0.5 dst=10.9.0.2 sport=5353 dport=4000 [ASSURED] mark=0 use=1
udp      17 20 src=10.9.0.2 dst=10.9.0.1 sport=4001 dport=53 src=10.0.0.5 dst=10.9.0.2 sport=5353 dport=4001 mark=0 use=1
udp      17 20 src=10.9.0.3 dst=10.9.0.1 sport=4001 dport=53 [UNREPLIED] src=10.0.0.6 dst=10.9.0.3 sport=5353 dport=4001 mark=0 use=1
udp      17 20 src=10.9.0.3 dst=8.8.8.8 sport=4001 dport=53 src=8.8.8.8 dst=10.9.0.3 sport=53 dport=4001 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 4 flow entries have been shown.
`

test('flows of a published port to a backend that is gone are chosen, once for all alike', () => {
  const backends = new Map([['53', new Set(['10.0.0.6'])]])
  assert.deepEqual(
    staleFlows(listing, backends, (address) => address === '10.9.0.1'),
    [['--orig-dst', '10.9.0.1', '--orig-port-dst', '53', '--reply-src', '10.0.0.5']],
  )
  assert.deepEqual(
    staleFlows(listing, backends, () => false),
    [],
  )
})

test('flows to a VIP are chosen by its address', () => {
  const backends = new Map([['10.9.0.1', new Set(['10.0.0.5'])]])
  assert.deepEqual(
    staleFlows(listing, backends, () => false),
    [['--orig-dst', '10.9.0.1', '--orig-port-dst', '53', '--reply-src', '10.0.0.6']],
  )
})

test('flows of IPv6 are chosen alike', () => {
  const flow =
    'udp      17 59 src=fd00::2 dst=fd00::9 sport=4 dport=53 src=fd00::5 dst=fd00::2 sport=53 dport=4 mark=0 use=1'
  const gone = [['--orig-dst', 'fd00::9', '--orig-port-dst', '53', '--reply-src', 'fd00::5']]
  const nowhere = () => false
  assert.deepEqual(staleFlows(flow, new Map([['fd00::9', new Set(['fd00::7'])]]), nowhere), gone)
  assert.deepEqual(staleFlows(flow, new Map([['fd00::9', new Set(['fd00::5'])]]), nowhere), [])
  const published = new Map([['53', new Set(['fd00::7'])]])
  assert.deepEqual(
    staleFlows(flow, published, (address) => address === 'fd00::9'),
    gone,
  )
})

test('lost addresses are found by where answers would come from', () => {
  const lost = new Set(['10.0.0.6', '10.9.0.2', '10.0.0.9'])
  assert.deepEqual([...answering(listing, lost)], ['10.0.0.6'])
})

test('established connections to ports that listen are counted, but not those over the loopback', () => {
  const table = `  sl  local_address rem_address   st tx_queue
   0: 00000000:0050 00000000:0000 0A 00000000:00000000
   1: 0B02D50A:0050 0D02D50A:9C40 01 00000000:00000000
   2: 0B02D50A:0050 0D02D50A:9C41 03 00000000:00000000
   3: 0B02D50A:0050 0D02D50A:9C42 06 00000000:00000000
   4: 0100007F:0050 0100007F:9C43 01 00000000:00000000
   5: 0B02D50A:0051 0D02D50A:9C44 01 00000000:00000000
   6: 0000000000000000FFFF00000B02D50A:0050 0000000000000000FFFF00000D02D50A:9C45 01
   7: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:9C46 01
   8: 00000000000000000000000001000000:0050 00000000000000000000000001000000:9C47 01
`
  assert.equal(countOpen(table), 3)
  assert.equal(countOpen(''), 0)
})
