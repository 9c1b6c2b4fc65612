import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { startDaemon } from './support/daemon.ts'
import { at, textAt } from './support/look.ts'

describe('the life of a swarm', () => {
  test('what swarm init was told is shown', async () => {
    await using daemon = await startDaemon({ init: false })
    const flags = [
      ['--advertise-addr', '127.0.0.1:2399'],
      ['--listen-addr', '127.0.0.1:2399'],
      ['--data-path-addr', '127.0.0.1'],
      ['--data-path-port', '4790'],
      ['--default-addr-pool', '10.99.0.0/16'],
      ['--default-addr-pool-mask-length', '26'],
      ['--availability', 'pause'],
      ['--cert-expiry', '720h'],
      ['--dispatcher-heartbeat', '6s'],
      ['--max-snapshots', '3'],
      ['--snapshot-interval', '12345'],
      ['--task-history-limit', '7'],
      ['--autolock'],
    ].flat()
    const output = await daemon.ok('swarm', 'init', ...flags)
    assert.match(output, /SWMKEY-1-[A-Za-z0-9+/]{43}/)
    assert.match(output, /127\.0\.0\.1:2399/)

    const info = await daemon.ok('info')
    assert.match(info, /Default Address Pool: 10\.99\.0\.0\/16/)
    assert.match(info, /SubnetSize: 26/)
    assert.match(info, /Data Path Port: 4790/)
    assert.match(info, /Task History Retention Limit: 7/)
    assert.match(info, /Snapshot Interval: 12345/)
    assert.match(info, /Number of Old Snapshots to Retain: 3/)
    assert.match(info, /Heartbeat Period: 6 seconds/)
    assert.match(info, /Expiry Duration: 4 weeks|Expiry Duration: 30 days/)
    assert.match(info, /Autolock Managers: true/)
    assert.match(await daemon.ok('node', 'ls'), /Pause/)

    const again = await daemon.docker('swarm', 'init')
    assert.notEqual(again.code, 0)
    assert.match(again.stderr, /This node is already part of a swarm/)
  })

  test('tokens, settings and keys rotate', async () => {
    await using daemon = await startDaemon()
    const token = await daemon.ok('swarm', 'join-token', '-q', 'worker')
    const manager = await daemon.ok('swarm', 'join-token', '-q', 'manager')
    assert.match(token, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/)
    assert.notEqual(token, manager)
    assert.equal(token.split('-')[2], manager.split('-')[2], 'both name one root certificate')
    assert.match(
      await daemon.ok('swarm', 'join-token', 'manager'),
      /To add a manager to this swarm, run the following command:/,
    )
    const rotated = await daemon.ok('swarm', 'join-token', '-q', '--rotate', 'worker')
    assert.notEqual(rotated, token)
    assert.equal(await daemon.ok('swarm', 'join-token', '-q', 'manager'), manager)

    const none = await daemon.docker('swarm', 'unlock-key')
    assert.match(`${none.stdout}${none.stderr}`, /no unlock key is set/)
    const update = await daemon.ok(
      ...['swarm', 'update', '--autolock=true', '--task-history-limit', '2'],
      ...['--dispatcher-heartbeat', '7s', '--cert-expiry', '1000h'],
    )
    assert.match(update, /Swarm updated\./)
    const key = await daemon.ok('swarm', 'unlock-key', '-q')
    assert.match(key, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/)
    assert.match(await daemon.ok('swarm', 'unlock-key', '--rotate'), /SWMKEY-1-/)
    assert.notEqual(await daemon.ok('swarm', 'unlock-key', '-q'), key)
    const { body } = await daemon.api('GET', '/swarm')
    assert.equal(at(body, 'Spec', 'Orchestration', 'TaskHistoryRetentionLimit'), 2)
    assert.equal(at(body, 'Spec', 'Dispatcher', 'HeartbeatPeriod'), 7_000_000_000)
    assert.equal(at(body, 'Spec', 'CAConfig', 'NodeCertExpiry'), 3_600_000_000_000_000)

    const root = await daemon.ok('swarm', 'ca')
    assert.match(root, /^-----BEGIN CERTIFICATE-----/)
    assert.equal(textAt(body, 'TLSInfo', 'TrustRoot').trim(), root)
    assert.match(
      await daemon.ok('swarm', 'ca', '--rotate', '--quiet'),
      /-----BEGIN CERTIFICATE-----|^$/,
    )
    const replaced = await daemon.ok('swarm', 'ca')
    assert.notEqual(replaced, root)
    assert.notEqual(
      (await daemon.ok('swarm', 'join-token', '-q', 'worker')).split('-')[2],
      rotated.split('-')[2],
      'a token names the root that it trusts',
    )
  })

  test('leaving needs force, forgets everything, and the next swarm is another one', async () => {
    await using daemon = await startDaemon()
    const cluster = textAt((await daemon.api('GET', '/swarm')).body, 'ID')
    await daemon.ok('service', 'create', '-d', '--name', 'left', 'whoami:v1')
    const refused = await daemon.docker('swarm', 'leave')
    assert.match(refused.stderr, /Removing the last manager erases all current state/)
    await daemon.ok('swarm', 'leave', '--force')
    const without = await daemon.docker('service', 'ls')
    assert.match(without.stderr, /This node is not a swarm manager\. Use "docker swarm init"/)
    const twice = await daemon.docker('swarm', 'leave', '--force')
    assert.match(twice.stderr, /This node is not part of a swarm/)
    await daemon.ok('swarm', 'init', '--advertise-addr', '127.0.0.1')
    assert.notEqual(textAt((await daemon.api('GET', '/swarm')).body, 'ID'), cluster)
    assert.doesNotMatch(await daemon.ok('service', 'ls'), /left/)
  })

  test('a swarm outlives its daemon, and joining what is not there fails in plain words', async () => {
    await using daemon = await startDaemon()
    const before = textAt((await daemon.api('GET', '/swarm')).body, 'ID')
    const node = await daemon.ok('node', 'ls', '-q')
    await daemon.stop()
    await daemon.start()
    assert.equal(textAt((await daemon.api('GET', '/swarm')).body, 'ID'), before)
    assert.equal(await daemon.ok('node', 'ls', '-q'), node)
    await daemon.ok('swarm', 'leave', '--force')
    const join = await daemon.docker('swarm', 'join', '--token', 'nonsense', '127.0.0.1:1')
    assert.notEqual(join.code, 0)
    assert.match(join.stderr, /token|join/)
  })
})
