import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import type { Identity } from './identity.ts'
import { decideOwnAddress } from './own-address.ts'

const identity: Identity = {
  nodeId: idFrom('node'),
  address: '10.0.0.1:2377',
  listenAddress: '0.0.0.0:2377',
}
const onEth0: Identity = { ...identity, interface: 'eth0' }

/** `eth0 10.0.0.1` */
function on(...lines: readonly string[]) {
  return lines.map((line) => {
    const [name = '', address = ''] = line.split(' ')
    return { interface: name, address, cidr: `${address}/24` }
  })
}

describe('what others reach a node by', () => {
  const cases = [
    {
      name: 'is noted with its interface',
      addresses: on('eth0 10.0.0.1', 'eth1 10.9.0.1'),
      want: onEth0,
    },
    {
      name: 'follows its interface to another address',
      before: onEth0,
      addresses: on('eth0 10.0.0.7', 'eth1 10.9.0.1'),
      want: { ...onEth0, address: '10.0.0.7:2377' },
    },
    {
      name: 'stays where it was on no interface: it is translated on the way',
      addresses: on('eth0 192.168.0.1'),
      want: identity,
    },
    {
      name: 'stays while it is on another interface',
      before: onEth0,
      addresses: on('bond0 10.0.0.1', 'eth0 10.5.0.1'),
      want: { ...onEth0, interface: 'bond0' },
    },
    {
      name: 'is what the daemon is told',
      before: onEth0,
      wanted: '10.9.0.1',
      addresses: on('eth0 10.0.0.1', 'eth1 10.9.0.1'),
      want: { ...onEth0, address: '10.9.0.1:2377', interface: 'eth1' },
    },
    {
      name: 'is what the daemon is told, with its port, if it is translated',
      before: onEth0,
      wanted: '203.0.113.1:4000',
      addresses: on('eth0 10.0.0.1'),
      want: { ...identity, address: '203.0.113.1:4000' },
    },
    {
      name: 'is that of an interface which the daemon is told',
      before: onEth0,
      wanted: 'eth1',
      addresses: on('eth0 10.0.0.1', 'eth1 10.9.0.1'),
      want: { ...onEth0, address: '10.9.0.1:2377', interface: 'eth1' },
    },
    {
      name: 'takes along what was bound to it',
      before: {
        ...onEth0,
        listenAddress: '10.0.0.1:2377',
        dataPathAddress: '10.0.0.1',
      },
      addresses: on('eth0 10.0.0.7'),
      want: {
        ...onEth0,
        address: '10.0.0.7:2377',
        listenAddress: '10.0.0.7:2377',
        dataPathAddress: '10.0.0.7',
      },
    },
  ]
  for (const { name, before = identity, wanted = '', addresses, want } of cases) {
    test(name, () => {
      const { identity: now, doubt } = decideOwnAddress(before, wanted, addresses)
      assert.deepEqual(now, want)
      assert.equal(doubt, undefined)
      assert.equal(decideOwnAddress(now, wanted, addresses).identity, now, 'and then rests')
    })
  }

  for (const { name, addresses, says } of [
    {
      name: 'stays while its interface has none, as before the network is up',
      addresses: on('eth1 10.9.0.1'),
      says: /10\.0\.0\.1, is no longer on this host: eth0 has no IPv4 address now/,
    },
    {
      name: 'stays while nobody says which of several it is',
      addresses: on('eth0 10.0.0.7', 'eth0 10.0.0.8'),
      says: /eth0 has several now \(10\.0\.0\.7 and 10\.0\.0\.8\)/,
    },
  ]) {
    test(name, () => {
      const { identity: now, doubt } = decideOwnAddress(onEth0, '', addresses)
      assert.equal(now, onEth0)
      assert.match(doubt?.message ?? '', says)
    })
  }

  test('an interface that is not there is refused', () => {
    assert.throws(() => decideOwnAddress(identity, 'eth9', on('eth0 10.0.0.1')), {
      code: 'invalidInput',
    })
  })
})
