import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Lab, openLab, reapLabs, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

/** Processes, mounts, devices, cgroups and files that carry a lab's name. */
function remainsOf(lab: { readonly name: string; readonly number: number }): readonly string[] {
  const folder = `/tmp/skep-lab/${lab.number}`
  const found: string[] = []
  for (const path of globSync('/proc/[0-9]*/cmdline')) {
    try {
      const words = readFileSync(path, 'utf8').split('\0')
      if (words.some((word) => word.includes(`${folder}/`))) found.push(words.join(' '))
    } catch {
      // It ended meanwhile.
    }
  }
  if (readFileSync('/proc/self/mountinfo', 'utf8').includes(`${folder}/`)) found.push('mounts')
  const devices = execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' })
  if (devices.includes(` ${lab.name}@`)) found.push(`device ${lab.name}`)
  found.push(...globSync(`/sys/fs/cgroup/{.,*}/${lab.name}`))
  if (existsSync(folder)) found.push(folder)
  return found
}

describe('a lab of hosts', { skip: (await whyNoLab()) ?? false, concurrency: false }, () => {
  let lab: Lab
  /** Whether a connection from one host to another's engine port comes about. */
  const reaches = async (from: number, to: number, withinSeconds = 1) => {
    const connect = `</dev/tcp/node${to}/9`
    const words = ['timeout', `${withinSeconds}`, 'bash', '-c', connect]
    const { stderr } = await lab.host(from).run(...words)
    // Nothing listens there: a refusal is an answer.
    return stderr.includes('refused')
  }

  /** It comes about in the end: a first packet after a change of cables may be lost, or wait for an address. */
  const comesToReach = (from: number, to: number) =>
    eventually(`node${from} to reach node${to}`, () => reaches(from, to, 5))

  before(async () => {
    lab = await openLab({ hosts: 3 })
  })
  after(async () => {
    await lab.down()
    assert.deepEqual(remainsOf(lab), [])
  })

  test('each host has an engine, a name and images of its own', async () => {
    const ids = await Promise.all(
      lab.hosts.map((host) => host.dockerOk('info', '-f', '{{.ID}} {{.Name}}')),
    )
    assert.equal(new Set(ids.map((id) => id.split(' ')[0])).size, 3)
    assert.deepEqual(
      ids.map((id) => id.split(' ')[1]),
      ['node1', 'node2', 'node3'],
    )
    const [host] = lab.hosts
    assert.equal(await host?.dockerOk('run', '--rm', 'busybox:latest', 'echo', 'here'), 'here')
  })

  test('a cut host is out of reach, and back when healed', async () => {
    await comesToReach(2, 1)
    await lab.cut(1)
    assert.equal(await reaches(2, 1), false)
    await comesToReach(2, 3)
    await lab.heal()
    await comesToReach(2, 1)
  })

  test('a cut of one way loses the frames of that way alone', async () => {
    const inspect = ['nft', 'list', 'ruleset']
    await lab.cutOneWay(1, 2)
    assert.equal(await reaches(2, 1), false) // The answer is lost.
    await comesToReach(3, 1)
    await lab.heal(2)
    await comesToReach(2, 1)
    assert.equal((await lab.host(1).run(...inspect)).code, 0)
  })

  test('a partition leaves each group whole', async () => {
    await lab.partition([1], [2, 3])
    assert.deepEqual(await Promise.all([reaches(1, 2), reaches(1, 3)]), [false, false])
    await comesToReach(3, 2)
    await lab.heal()
  })

  test('a slow cable loses what it is told to', async () => {
    await lab.delay(1, { delayMs: 5, lossPercent: 100 })
    assert.equal(await reaches(2, 1), false)
    await lab.delay(1, { delayMs: 5 })
    await comesToReach(2, 1)
    await lab.cut(1)
    assert.equal(await reaches(2, 1), false)
    await lab.heal()
    await lab.delay(1, undefined)
    await comesToReach(2, 1)
  })

  test('a paused host answers nothing until it goes on', async () => {
    const ask = ['-sf', '-m', '1', '--unix-socket', join(lab.host(2).folder, 'engine.sock')]
    const ping = () => run('curl', [...ask, 'http://host/_ping'])
    await lab.host(2).pause()
    assert.notEqual((await ping()).code, 0)
    await lab.host(2).resume()
    await eventually('it answers again', async () => (await ping()).code === 0)
  })

  test('a host whose power was cut has its disk when it is on again', async () => {
    const host = lab.host(3)
    await host.dockerOk('volume', 'create', 'kept')
    await host.dockerOk('run', '-d', '--name', 'gone', 'busybox:latest', 'sleep', '1000')
    await host.powerOff()
    assert.equal(host.isOn, false)
    assert.equal(await reaches(2, 3), false)
    await host.powerOn()
    assert.equal(await host.dockerOk('volume', 'ls', '-q'), 'kept')
    assert.equal(await host.dockerOk('ps', '-q'), '')
    await comesToReach(2, 3)
  })

  test('containers outlive an engine that is killed', async () => {
    const host = lab.host(1)
    await host.dockerOk('run', '-d', '--name', 'lives', 'busybox:latest', 'sleep', '1000')
    await host.stopEngine('SIGKILL')
    assert.notEqual((await host.docker('ps')).code, 0)
    await host.startEngine()
    assert.match(await host.dockerOk('ps', '-a', '--format', '{{.Names}}'), /lives/)
  })

  test('a daemon is killed and started again with its state', async () => {
    const host = lab.host(1)
    await host.startDaemon()
    await host.skepDockerOk('swarm', 'init', '--advertise-addr', host.address)
    await host.stopDaemon('SIGKILL')
    assert.notEqual((await host.skepDocker('node', 'ls')).code, 0)
    await host.startDaemon()
    assert.match(await host.skepDockerOk('node', 'ls'), /node1/)
  })
})

describe('a lab whose owner crashes', { skip: (await whyNoLab()) ?? false }, () => {
  test('ends by itself, and the next one removes what it left', async () => {
    const script = `
      import { openLab } from '${join(import.meta.dirname, 'lab/open-lab.ts')}'
      const lab = await openLab({ hosts: 1 })
      console.log(JSON.stringify({ name: lab.name, number: lab.number, pid: lab.host(1).pid }))
      setInterval(() => {}, 1000)`
    const owner = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const text = await new Promise<Buffer>((done) => owner.stdout.once('data', done))
    const lab: { name: string; number: number; pid: number } = JSON.parse(text.toString())
    assert.equal(existsSync(`/proc/${lab.pid}`), true)
    owner.kill('SIGKILL')
    await eventually('the end of its host', async () => !existsSync(`/proc/${lab.pid}`))
    const reaped = await reapLabs()
    // Another process that opens a lab just now may have been faster.
    if (!reaped.includes(lab.number)) {
      await eventually('its remains are gone', async () => remainsOf(lab).length === 0)
    }
    assert.deepEqual(remainsOf(lab), [])
  })
})
