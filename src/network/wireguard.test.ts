import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import { planOverlay, tunnelMtu } from './overlay-plan.ts'
import { buildNetwork } from './test-objects.ts'
import { renderPlainRules, renderTunnel, tunnelAddress, tunnelDevice } from './wireguard.ts'

const devices = [{ name: 'eth0', mtu: 1500, mac: '', addresses: ['192.0.2.1'] }]
const secret = {
  ...buildNetwork('secret', { subnet: '10.0.1.0/24', gateway: '10.0.1.1' }),
  encrypted: true,
  vni: 4097,
}
const neighbour = {
  id: 'x',
  networkId: secret.id,
  address: '10.0.1.5',
  mac: 'm',
  nodeId: idFrom<'node'>('n2'),
  nodeAddress: '192.0.2.2',
}
const tunnel = { address: tunnelAddress('n1'), mtu: tunnelMtu(devices, '192.0.2.1') }
const plan = (extra: object, peer: object) =>
  [
    ...planOverlay({
      networks: [secret],
      neighbours: [{ ...neighbour, ...peer }],
      dataPath: { address: '192.0.2.1', port: 4789 },
      devices,
      ...extra,
    }).values(),
  ][0]

describe('encrypted networks', () => {
  test('addresses within tunnels are written in one way, and differ', () => {
    const addresses = Array.from({ length: 200 }, (_, index) => tunnelAddress(`node${index}`))
    assert.equal(new Set(addresses).size, 200)
    for (const address of addresses) {
      assert.match(address, /^fd73:6b65:7001(:[89a-f][0-9a-f]{3}){5}$/)
    }
    assert.ok(tunnelDevice('abcdefghijklmnopqrstuvwxy').length <= 15)
  })

  test('lie within the tunnel, from end to end', () => {
    const made = plan({ tunnel }, { publicKey: 'k' })
    assert.equal(made?.local, tunnelAddress('n1'))
    assert.equal(made?.places.get('10.0.1.5')?.node, tunnelAddress('n2'))
    assert.equal(made?.mtu, 1500 - 60 - 70)
  })

  test('stay apart where either end has none', () => {
    assert.equal(plan({}, { publicKey: 'k' }), undefined)
    assert.equal(plan({ tunnel }, {}), undefined)
  })

  const told = {
    device: 'sw-n1',
    address: tunnel.address,
    listenPort: 4790,
    mtu: 1440,
    peers: [{ publicKey: 'k', endpoint: '192.0.2.2', address: tunnelAddress('n2') }],
    vnis: [4097, 4099],
    dataPort: 4789,
  }

  test('each peer may send from its own address alone', () => {
    assert.equal(
      renderTunnel(told, 'private'),
      `[Interface]\nPrivateKey = private\nListenPort = 4790\n[Peer]\nPublicKey = k\nAllowedIPs = ${tunnelAddress('n2')}/128\nEndpoint = 192.0.2.2:4790\nPersistentKeepalive = 25\n`,
    )
  })

  test('packets of theirs pass by the tunnel alone, both ways', () => {
    const rules = renderPlainRules('t', told)
    assert.match(rules, /iifname != "sw-n1" udp dport 4789 @th,96,24 \{ 4097, 4099 \} drop/)
    assert.match(rules, /oifname != "sw-n1" udp dport 4789 @th,96,24 \{ 4097, 4099 \} drop/)
  })
})
