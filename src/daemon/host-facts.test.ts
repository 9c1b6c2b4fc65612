import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import {
  chooseDataPathAddress,
  chooseListenAddress,
  findPort,
  isHostStopping,
} from './host-facts.ts'

const addresses = [{ interface: 'eth0', address: '192.168.1.5', cidr: '192.168.1.5/24' }]

describe('where packets of cluster networks are taken', () => {
  for (const [wanted, want] of [
    ['10.0.0.1', '10.0.0.1'],
    ['eth0', '192.168.1.5'],
  ] as const) {
    test(`"${wanted}" is ${want}`, () => {
      assert.equal(chooseDataPathAddress(wanted, addresses), want)
    })
  }
  for (const wanted of ['0.0.0.0', '10.0.0.1:4789', 'eth9', 'fd00::1']) {
    test(`"${wanted}" is refused`, () => {
      assert.throws(() => chooseDataPathAddress(wanted, addresses), { code: 'invalidInput' })
    })
  }
})

describe('where the cluster port listens', () => {
  const cases = [
    { wanted: '0.0.0.0:2377', want: { host: '0.0.0.0', port: 2377 } },
    { wanted: '', want: { host: '0.0.0.0', port: 2377 } },
    { wanted: '10.0.0.1', want: { host: '10.0.0.1', port: 2377 } },
    { wanted: 'eth0', want: { host: '192.168.1.5', port: 2377 } },
    { wanted: 'eth0:2399', want: { host: '192.168.1.5', port: 2399 } },
  ]
  for (const { wanted, want } of cases) {
    test(`"${wanted}" is ${want.host}:${want.port}`, () => {
      assert.deepEqual(chooseListenAddress(wanted, addresses), want)
    })
  }

  test('an address of IPv6 is refused as such', () => {
    for (const wanted of ['fd00::1', '[fd00::1]:2377', '::']) {
      assert.throws(() => chooseListenAddress(wanted, addresses), { message: /address of IPv6/ })
    }
  })

  test('an interface that this host does not have is refused', () => {
    assert.throws(() => chooseListenAddress('eth9', addresses), { code: 'invalidInput' })
  })

  test('a port that is taken is refused before anything is made of it; port 0 becomes a free one', async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const bound = taken.address()
    assert.ok(typeof bound === 'object' && bound)
    const { port } = bound
    await assert.rejects(findPort({ host: '127.0.0.1', port }), /the cluster port can't be opened/)
    taken.close()
    assert.notEqual((await findPort({ host: '127.0.0.1', port: 0 })).port, 0)
  })
})

describe('whether the host goes down', () => {
  for (const [said, want] of [
    ['stopping', true],
    ['running', false],
    ['degraded', false],
    ['offline', false],
  ] as const) {
    test(`systemd says ${said}: ${want}`, async (t) => {
      const folder = await mkdtemp(join(tmpdir(), 'skep-systemd-'))
      t.after(() => rm(folder, { recursive: true }))
      const program = join(folder, 'systemctl')
      await writeFile(program, `#!/bin/sh\necho ${said}\nexit 1\n`, { mode: 0o755 })
      assert.equal(await isHostStopping(program), want)
    })
  }

  test('no systemd, no', async () => {
    assert.equal(await isHostStopping('/nonexistent/systemctl'), false)
  })
})
