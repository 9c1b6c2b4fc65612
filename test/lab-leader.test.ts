import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { DownWatch } from './lab/down-watch.ts'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually } from './support/daemon.ts'
import { EngineApi } from './support/engine-api.ts'
import { etcdIsMissing } from './support/etcd-cluster.ts'
import { judge, Writer } from './support/write-history.ts'

const skip = (await whyNoLab()) ?? etcdIsMissing

/** A daemon that was killed is back in time, in ms: a second less than it is waited for (`returnMs` of the dispatcher). */
const awayMsMax = 3_000

/** What three managers do while the one that leads is killed, stands still, or is shut down. */
describe('a leader that is lost', { skip, concurrency: false }, () => {
  let lab: Lab
  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    const one = lab.host(1)
    await formCluster(one, { manager: [lab.host(2), lab.host(3)] })
    const flags = ['-d', '--no-resolve-image', '--name', 'web', '--replicas', '6']
    await one.skepDockerOk('service', 'create', ...flags, 'whoami:v1')
    await settled(one, 'web', 6)
  })
  after(() => lab[Symbol.asyncDispose]())

  /** All managers are in reach, and all tasks of a service run. */
  async function settled(by: LabHost, service: string, replicas: number): Promise<void> {
    await eventually('three managers are in reach, and every task runs', async () => {
      const nodes = await by.skepDocker('node', 'ls', '--format', '{{.Status}} {{.ManagerStatus}}')
      const lines = nodes.stdout.trim().split('\n').sort().join()
      const services = ['service', 'ls', '--filter', `name=${service}`, '--format', '{{.Replicas}}']
      const { stdout } = await by.skepDocker(...services)
      return (
        lines === 'Ready Leader,Ready Reachable,Ready Reachable' &&
        stdout.trim() === `${replicas}/${replicas}`
      )
    })
  }

  /** The host that leads, and one of the others. */
  async function leader(): Promise<{ readonly host: LabHost; readonly other: LabHost }> {
    return eventually('a leader', async () => {
      for (const asked of lab.hosts) {
        const format = '{{.Hostname}} {{.ManagerStatus}}'
        const { stdout } = await asked.skepDocker('node', 'ls', '--format', format)
        const name = /^(\S+) Leader$/m.exec(stdout)?.[1]
        const host = lab.hosts.find((candidate) => candidate.name === name)
        const other = lab.hosts.find((candidate) => candidate !== host)
        if (host && other) return { host, other }
      }
      return undefined
    })
  }

  async function containers(): Promise<ReadonlySet<string>> {
    const label = 'label=com.docker.swarm.task.id'
    const all = await Promise.all(
      lab.hosts.map((host) => host.dockerOk('ps', '-q', '--no-trunc', '--filter', label)),
    )
    return new Set(all.join('\n').split('\n').filter(Boolean))
  }

  const nodeIdOf = (host: LabHost) => host.skepDockerOk('info', '--format', '{{.Swarm.NodeID}}')

  test('killed again and again under writes: nothing that was acknowledged is lost, no task is restarted', async (t) => {
    const before = await containers()
    const writers = lab.hosts.map((host) => new Writer(host.api, host.name))
    t.after(() => Promise.all(writers.map((writer) => writer.stop())))
    for (const writer of writers) writer.start()
    const backMs: number[] = []
    for (let kill = 0; kill < 4; kill++) {
      const { host, other } = await leader()
      const killedAtMs = performance.now()
      await host.stopDaemon('SIGKILL')
      const back = host.startDaemon().then(() => backMs.push(performance.now() - killedAtMs))
      const others = writers.filter((_, at) => lab.hosts[at] !== host)
      await eventually('the others take writes', async () =>
        others.every((writer) => writer.firstDoneSince(killedAtMs) !== undefined),
      )
      await back
      await settled(other, 'web', 6)
    }
    await Promise.all(writers.map((writer) => writer.stop()))
    const api = new EngineApi(lab.host(1).api)
    const verdict = await judge(writers, api)
    api.close()
    t.diagnostic(
      `${verdict.acknowledged} writes acknowledged, ${verdict.unknown} without an answer`,
    )
    assert.ok(verdict.acknowledged > 20)
    assert.deepEqual([verdict.lost, verdict.phantom, verdict.doubled], [[], [], []])
    t.diagnostic(`daemons were back after ${backMs.map(Math.round).join(', ')} ms`)
    // A machine so busy that a daemon is away for longer is right to have its tasks replaced.
    if (backMs.every((ms) => ms < awayMsMax)) assert.deepEqual(await containers(), before)
  })

  for (const seconds of [3, 20]) {
    test(`its host stands still for ${seconds} s: no other node is called down, and nothing is done twice`, async (t) => {
      const { host, other } = await leader()
      const own = await nodeIdOf(host)
      const downs = new DownWatch(lab)
      await host.pause()
      t.after(() => host.resume())
      const resumed = pause(seconds * 1_000).then(() => host.resume())
      const replicas = seconds === 3 ? 9 : 6
      await eventually('the others go on', async () => {
        const scaled = await other.skepDocker('service', 'scale', '-d', `web=${replicas}`)
        return scaled.code === 0
      })
      await resumed
      await settled(other, 'web', replicas)
      const wrong = downs.take().filter(({ nodeId }) => nodeId !== own)
      assert.deepEqual(wrong, [])
      await eventually('each task has one container', async () => {
        return (await containers()).size === replicas
      })
    })
  }

  test('its host is shut down in order: its tasks are replaced at once', async (t) => {
    const { host, other } = await leader()
    const nodeId = await nodeIdOf(host)
    const downs = new DownWatch(lab)
    // As systemd answers while a host goes down.
    const program = await host.must('bash', '-c', 'command -v systemctl || true')
    if (program === '') return t.skip('there is no systemctl to stand in for')
    const say = "printf '#!/bin/sh\\necho stopping\\nexit 1\\n' >/run/systemctl"
    const bind = `mount --bind /run/systemctl ${program}`
    await host.must('bash', '-c', `${say} && chmod +x /run/systemctl && ${bind}`)
    await host.stopDaemon()
    await host.must('umount', program)
    await eventually('it is down', async () => {
      const { stdout } = await other.skepDocker(
        'node',
        'ls',
        '--format',
        '{{.Hostname}} {{.Status}}',
      )
      return stdout.includes(`${host.name} Down`)
    })
    // The log may have it a moment later than the view of another manager.
    const told = await eventually('the log tells it', async () => {
      const found = downs.take()
      return found.length > 0 && found
    })
    assert.deepEqual(told, [{ nodeId, why: 'its host was shut down' }])
    t.diagnostic('and comes back')
    await host.startDaemon()
    await settled(other, 'web', 6)
  })
})
