import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatIpv4, formatIpv4Block, macOf, parseIpv4, parseIpv4Block } from './ipv4.ts'

describe('IPv4 addresses', () => {
  test('are read as such or not at all', () => {
    assert.equal(parseIpv4('10.0.0.1'), 0x0a000001)
    assert.equal(formatIpv4(0xffffffff), '255.255.255.255')
    for (const text of ['', '10.0.0', '10.0.0.256', '::1', '10.0.0.1x', '1.2.3.4.5']) {
      assert.equal(parseIpv4(text), undefined)
    }
  })

  test('come in blocks', () => {
    const block = parseIpv4Block('10.0.1.9/24')
    assert.deepEqual(block, { first: 0x0a000100, last: 0x0a0001ff })
    assert.equal(block && formatIpv4Block(block), '10.0.1.0/24')
    for (const text of ['', '10.0.1.0', '10.0.1.0/33', '10.0.1.0/24/1', 'fd00::/64']) {
      assert.equal(parseIpv4Block(text), undefined)
    }
  })

  test('have the link-layer address that engines derive from them', () => {
    assert.equal(macOf('10.0.1.7'), '02:42:0a:00:01:07')
  })
})
