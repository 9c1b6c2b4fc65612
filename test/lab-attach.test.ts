import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually } from './support/daemon.ts'

describe('plain containers on attachable networks of several nodes', {
  skip: (await whyNoLab()) ?? false,
}, () => {
  let lab: Lab
  let manager: LabHost
  let one: LabHost
  let two: LabHost
  const kept = async (): Promise<string> =>
    (await manager.skepDocker('network', 'rm', 'att')).stderr
  const runOn = (host: LabHost, name: string, ...flags: readonly string[]) =>
    host.skepDockerOk('run', '-d', '--name', name, '--network', 'att', ...flags, 'whoami:v1')
  /** Asks by name from within a container. */
  const ask = async (host: LabHost, container: string, name: string): Promise<string> => {
    const looked = await host.docker('exec', container, 'nslookup', '-type=a', name)
    const address = /Name:.*\nAddress: (\S+)/.exec(looked.stdout)?.[1]
    if (address === undefined) return ''
    const pid = await host.dockerOk('inspect', '-f', '{{.State.Pid}}', container)
    const inside = ['nsenter', '-t', pid, '-n', 'curl', '-s', '-m', '2', `http://${address}/`]
    return (await host.run(...inside)).stdout
  }
  const addressOf = (host: LabHost, container: string) =>
    host.dockerOk(
      ...['inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'],
      container,
    )

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true, images: ['whoami:v1', 'busybox:latest'] })
    const [first, second, third] = lab.hosts
    assert(first && second && third)
    manager = first
    one = second
    two = third
    await formCluster(manager, { worker: [one, two] })
    await manager.skepDockerOk('network', 'create', '-d', 'overlay', '--attachable', 'att')
    await manager.skepDockerOk('network', 'create', '-d', 'overlay', 'shut')
  })
  after(() => lab.down())

  test('they run on workers, have different addresses, and find each other by name', async () => {
    await runOn(one, 'c1', '--network-alias', 'web')
    await runOn(two, 'c2')
    await manager.skepDockerOk(
      ...['run', '-d', '--name', 'c3', '--network', 'att', '--ip', '10.0.1.77'],
      ...['busybox:latest', 'sleep', '100000'],
    )
    await two.skepDockerOk(
      ...['run', '-d', '--name', 'c4', '--network', 'att', 'busybox:latest', 'sleep', '100000'],
    )
    assert.notEqual(await addressOf(one, 'c1'), await addressOf(two, 'c2'))
    assert.equal(await addressOf(manager, 'c3'), '10.0.1.77')
    for (const name of ['c1', 'c2', 'web']) {
      await eventually(`c3 reaches ${name}`, async () =>
        /hostname/.test(await ask(manager, 'c3', name)),
      )
      await eventually(`c4 reaches ${name}`, async () =>
        /hostname/.test(await ask(two, 'c4', name)),
      )
    }
  })

  test('a network that is not attachable, or not there, is said', async () => {
    const shut = await one.skepDocker('run', '--rm', '--network', 'shut', 'busybox:latest', 'true')
    assert.match(shut.stderr, /network shut not manually attachable/)
    const nowhere = await one.skepDocker(
      ...['run', '--rm', '--network', 'nowhere', 'busybox:latest', 'true'],
    )
    assert.match(nowhere.stderr, /network nowhere not found/)
  })

  test('docker network connect and disconnect work on a worker', async () => {
    await one.skepDockerOk('run', '-d', '--name', 'late', 'busybox:latest', 'sleep', '100000')
    await one.skepDockerOk('network', 'connect', '--alias', 'lately', 'att', 'late')
    const inspect = await one.dockerOk(
      ...['inspect', '-f', '{{(index .NetworkSettings.Networks "att").IPAddress}}', 'late'],
    )
    assert.match(inspect, /^10\.0\.1\.\d+$/)
    await eventually('its alias resolves on another node', async () => {
      const looked = await two.docker('exec', 'c4', 'nslookup', '-type=a', 'lately')
      return looked.stdout.includes(inspect)
    })
    await one.skepDockerOk('network', 'disconnect', 'att', 'late')
    await one.skepDockerOk('rm', '-f', 'late')
  })

  test('places are freed when containers go, also while the daemon or the engine is away', async () => {
    await one.stopDaemon('SIGKILL')
    await one.dockerOk('rm', '-f', 'c1')
    await one.startDaemon()
    await two.stopEngine()
    await two.startEngine()
    await two.dockerOk('rm', '-f', 'c2', 'c4')
    await manager.skepDockerOk('rm', '-f', 'c3')
    await eventually('nothing holds the network', async () => (await kept()) === '')
    for (const host of lab.hosts) {
      await eventually(`no bridge on ${host.name}`, async () => {
        const links = await host.must('ip', '-br', 'link')
        return !/^s[kv]-/m.test(links)
      })
    }
  })
})
