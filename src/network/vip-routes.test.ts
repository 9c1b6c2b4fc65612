import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bridgeName } from './bridge-name.ts'
import { planBridgeSettings } from './bridge-settings.ts'
import { buildEndpoint, buildNetwork } from './test-objects.ts'
import { changeRoutes, parseVipRoutes, planVipRoutes } from './vip-routes.ts'

const network = buildNetwork('net')
const elsewhere = buildNetwork('elsewhere')
const bridge = bridgeName(network.id)

test('a node answers for the VIPs on its own networks, with backends and without', () => {
  const endpoints = [
    buildEndpoint('web', { networks: [{ networkId: network.id, vip: '10.0.1.9', aliases: [] }] }),
    buildEndpoint('far', { networks: [{ networkId: elsewhere.id, vip: '10.0.2.9', aliases: [] }] }),
    buildEndpoint('none', { mode: 'dnsrr', networks: [{ networkId: network.id, aliases: [] }] }),
  ]
  assert.deepEqual([...planVipRoutes([network], endpoints)], [`10.0.1.9 dev ${bridge}`])
})

test('only what differs is told', () => {
  const present = new Set(['10.0.1.8 dev sk-a', '10.0.1.9 dev sk-a'])
  assert.deepEqual(changeRoutes(present, new Set(['10.0.1.9 dev sk-a', '10.0.1.9 dev sk-b'])), [
    'route delete local 10.0.1.8 dev sk-a table local proto 179',
    'route replace local 10.0.1.9 dev sk-b table local proto 179',
  ])
  assert.deepEqual(changeRoutes(present, present), [])
})

test('routes are read as the kernel lists them', () => {
  const listing =
    '[{"type":"local","dst":"10.0.1.9","dev":"sk-a","protocol":"179","scope":"host","flags":[]}]'
  assert.deepEqual(parseVipRoutes(listing), ['10.0.1.9 dev sk-a'])
  assert.deepEqual(parseVipRoutes(''), [])
})

test("bridges ask the host's rules, and their ports let a task reach itself", () => {
  const devices = [
    { ifname: 'sk-a', linkinfo: { info_kind: 'bridge', info_data: { nf_call_iptables: 0 } } },
    { ifname: 'sk-b', linkinfo: { info_kind: 'bridge', info_data: { nf_call_iptables: 1 } } },
    { ifname: 'br-other', linkinfo: { info_kind: 'bridge', info_data: { nf_call_iptables: 0 } } },
    { ifname: 'veth1', master: 'sk-b', linkinfo: { info_slave_data: { hairpin: false } } },
    { ifname: 'veth2', master: 'sk-b', linkinfo: { info_slave_data: { hairpin: true } } },
    { ifname: 'veth3', master: 'br-other', linkinfo: { info_slave_data: { hairpin: false } } },
    { ifname: 'sv-b', master: 'sk-b', linkinfo: { info_slave_data: { hairpin: false } } },
    {},
  ]
  const plan = planBridgeSettings(JSON.stringify(devices), new Set(['sk-a', 'sk-b']))
  assert.deepEqual(plan.bridges, ['link set dev sk-a type bridge nf_call_iptables 1'])
  assert.deepEqual(plan.ports, ['link set dev veth1 hairpin on'])
  assert.equal(plan.found.length, 1)
})
