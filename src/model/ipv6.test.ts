import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { formatWide, ipv4Of, ipv6Of, parseWide, parseWideBlock } from './ipv6.ts'

const network = {
  subnet: '10.0.1.0/24',
  ipv6: { subnet: 'fd12:3456:789a:1::/64', gateway: 'fd12:3456:789a:1::1' },
}

describe('IPv6 addresses of a network', () => {
  test('belong to the IPv4 ones, as far from the start', () => {
    assert.equal(ipv6Of(network, '10.0.1.7'), 'fd12:3456:789a:1::7')
    assert.equal(ipv6Of(network, '10.0.1.254'), 'fd12:3456:789a:1::fe')
  })

  test('are counted from the range where there is one', () => {
    const ranged = { ...network, ipv6: { ...network.ipv6, range: 'fd12:3456:789a:1:8000::/80' } }
    assert.equal(ipv6Of(ranged, '10.0.1.7'), 'fd12:3456:789a:1:8000::7')
    assert.equal(ipv4Of(ranged, 'fd12:3456:789a:1:8000::7'), '10.0.1.7')
    assert.equal(ipv4Of(ranged, 'fd12:3456:789a:1::7'), undefined)
  })

  test('no two IPv4 addresses have the same one, and each leads back', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 8, max: 30 }),
        fc.nat(0xffff_ffff),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        (prefix, number, high) => {
          const dotted = [24, 16, 8, 0]
            .map((shift) => Math.floor(number / 2 ** shift) % 256)
            .join('.')
          const wide = {
            subnet: `${dotted}/${prefix}`,
            ipv6: { subnet: `${formatWide(high << 64n)}/64`, gateway: '' },
          }
          assert.equal(ipv4Of(wide, ipv6Of(wide, dotted)), dotted)
        },
      ),
    )
  })

  test('what is none of them leads nowhere', () => {
    for (const other of ['fd12:3456:789a:1::100', 'fd12:3456:789a::7', '10.0.1.7', 'x', '']) {
      assert.equal(ipv4Of(network, other), undefined, other)
    }
  })

  test('are written as the kernel writes them', () => {
    const texts = ['::', '::1', 'fd00::7', 'fd00:0:0:1::1', '2001:db8:0:1:1:1:1:1']
    for (const text of texts) assert.equal(formatWide(parseWide(text) ?? -1n), text)
    assert.equal(formatWide(parseWide('FD00:0:0:0:0:0:0:07') ?? 0n), 'fd00::7')
  })

  test('a block is read with the bits past its prefix ignored', () => {
    assert.deepEqual(parseWideBlock('fd00::5/126'), {
      first: parseWide('fd00::4'),
      last: parseWide('fd00::7'),
    })
    for (const text of ['fd00::', 'fd00::/129', '10.0.0.0/8', 'fd00::/6/4', 'x/64']) {
      assert.equal(parseWideBlock(text), undefined, text)
    }
  })
})
