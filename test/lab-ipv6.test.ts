import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

/**
 * Asks by name again and again, each time with a connection of its own, and prints what failed. Ends with its input, once
 * it has asked often enough.
 */
const load = (name: string, askedMin: number) => `
  const { Resolver } = require('node:dns/promises')
  const http = require('node:http')
  const resolver = new Resolver({ timeout: 20000 })
  resolver.setServers(['127.0.0.11'])
  const ask = async () => {
    const [host] = await resolver.resolve6('${name}')
    return new Promise((resolve, reject) => {
      const request = http.get({ host, agent: false, timeout: 60000 }, (answer) => {
        answer.resume().on('end', () => resolve(host))
      })
      request.on('error', reject).on('timeout', () => request.destroy(new Error('timeout')))
    })
  }
  let asked = 0
  const failures = []
  const all = []
  let isOver = false
  process.stdin.resume().on('end', () => { isOver = true })
  console.log('begun')
  const timer = setInterval(async () => {
    asked++
    all.push(ask().catch((error) => failures.push(error.message)))
    if (!isOver || asked < ${askedMin}) return
    clearInterval(timer)
    await Promise.all(all)
    console.log(JSON.stringify({ asked, failures }))
  }, 20)`

const noEncryption = (await run('which', ['wg', 'wireguard-go'])).code !== 0 && 'needs WireGuard'

describe('a network with IPv6 on several nodes', { skip: (await whyNoLab()) ?? false }, () => {
  let lab: Lab
  let one: LabHost
  let two: LabHost
  const underlay = (host: LabHost) => `fd18::${host.number}`

  const client = (host: LabHost) => host.dockerOk('ps', '-q', '--filter', 'name=client')
  const inClient = async (host: LabHost, ...words: readonly string[]): Promise<string> => {
    const pid = await host.dockerOk('inspect', '-f', '{{.State.Pid}}', await client(host))
    return (await host.run('nsenter', '-t', pid, '-n', ...words)).stdout
  }
  const curl = (address: string) => ['curl', '-s', '-m', '2', `http://[${address}]/`]
  const nameOf = (text: string) => /^hostname: (.*)$/m.exec(text)?.[1]?.trim()
  const resolve = async (host: LabHost, name: string): Promise<readonly string[]> => {
    const { stdout } = await host.docker(
      ...['exec', await client(host), 'nslookup', '-type=aaaa', name],
    )
    return [...stdout.matchAll(/^Address: ([0-9a-f]*:[0-9a-f:]*)$/gm)].map(
      ([, found]) => found ?? '',
    )
  }
  const running = (count: number) =>
    eventually(`${count} tasks of web`, async () => {
      const text = await one.skepDockerOk(
        ...['service', 'ps', '-f', 'desired-state=running', '--format', '{{.CurrentState}}', 'web'],
      )
      return text.split('\n').filter((line) => line.startsWith('Running')).length === count
    })
  /** All backends answer the client by the VIP. */
  const reachesBoth = async (host: LabHost, vip: string): Promise<boolean> => {
    const seen = new Set<string>()
    for (let round = 0; round < 4; round++) {
      const name = nameOf(await inClient(host, ...curl(vip)))
      if (name !== undefined) seen.add(name)
    }
    return seen.size === 2
  }
  let vip = ''

  before(async () => {
    lab = await openLab({ hosts: 2, daemons: true })
    const [first, second] = lab.hosts
    assert(first && second)
    one = first
    two = second
    for (const host of lab.hosts) {
      await host.must('ip', '-6', 'address', 'add', `${underlay(host)}/64`, 'dev', 'eth0', 'nodad')
    }
    await formCluster(one, { worker: [two] })
    // The one by which published ports come in has IPv6 where it is made so.
    const socket = one.api.slice('unix://'.length)
    await run('curl', ['-s', '--unix-socket', socket, '-X', 'DELETE', 'http://d/networks/ingress'])
    await eventually('the ingress network with IPv6', async () => {
      const flags = ['--ingress', '--ipv6', 'ingress']
      return (await one.skepDocker('network', 'create', '-d', 'overlay', ...flags)).code === 0
    })
    await one.skepDockerOk('network', 'create', '-d', 'overlay', '--ipv6', '--attachable', 'six')
    const onSix = ['service', 'create', '--detach', '--network', 'six', '--name']
    await one.skepDockerOk(
      ...onSix,
      'client',
      '--mode',
      'global',
      'busybox:latest',
      'sleep',
      '9999',
    )
    await one.skepDockerOk(
      ...[...onSix, 'web', '--replicas', '2', '--replicas-max-per-node', '1', '-p', '8080:80'],
      ...['--update-order', 'stop-first', '--hostname', '{{.Node.Hostname}}', 'whoami:v1'],
    )
    await running(2)
    await eventually('a client on both nodes', async () =>
      (await Promise.all([client(one), client(two)])).every((id) => id !== ''),
    )
  })
  after(() => lab.down())

  test('it has a subnet of each family, and so has each task', async () => {
    const format = '{{.EnableIPv6}} {{range .IPAM.Config}}{{.Subnet}} {{end}}'
    const text = await one.skepDockerOk('network', 'inspect', '-f', format, 'six')
    assert.match(text, /^true 10\.\S+\/24 fd\S+::\/64/)
    const id = await one.skepDockerOk('service', 'ps', '-q', 'web')
    const addresses = await one.skepDockerOk(
      ...['inspect', '--type', 'task', '-f', '{{range .NetworksAttachments}}{{.Addresses}}{{end}}'],
      id.split('\n')[0] ?? '',
    )
    assert.match(addresses, /10\.\S+\/24 fd\S+\/64/)
  })

  test('names have its addresses, and the VIP and each task answer there on both nodes', async () => {
    for (const host of [one, two]) {
      // A node is told of names and tasks after those run.
      vip = await eventually(`an address of web on ${host.name}`, async () => {
        return (await resolve(host, 'web'))[0]
      })
      assert.match(vip, /^fd/)
      await eventually(`both tasks by the VIP from ${host.name}`, () => reachesBoth(host, vip))
      const tasks = await eventually(`both tasks by name on ${host.name}`, async () => {
        const found = await resolve(host, 'tasks.web')
        return found.length === 2 && found
      })
      const names = await Promise.all(
        tasks.map(async (address) => nameOf(await inClient(host, ...curl(address)))),
      )
      assert.deepEqual(new Set(names), new Set([one.name, two.name]))
    }
  })

  test('a published port answers on IPv6 addresses of hosts, and sees the client', async () => {
    const ask = async (from: LabHost, to: LabHost): Promise<string> =>
      (await from.run('curl', '-s', '-m', '20', `http://[${underlay(to)}]:8080/`)).stdout
    // Its own task serves, once the node is told that it runs.
    const text = await eventually('an answer of the task there', async () => {
      const answer = await ask(one, two)
      return nameOf(answer) === two.name && answer
    })
    assert.match(text, /^peer: \[fd18::1\]:/m)
    assert.equal(nameOf(await ask(two, two)), two.name)
    // The loopback has no way there: clients go on to that of IPv4 at once.
    assert.equal((await two.run('curl', '-s', '-m', '20', 'http://[::1]:8080/')).code, 7)
    assert.equal(
      nameOf(await two.must('curl', '-s', '-m', '20', 'http://localhost:8080/')),
      two.name,
    )
  })

  test('an update under load fails no request', async (t) => {
    const pid = await one.dockerOk('inspect', '-f', '{{.State.Pid}}', await client(one))
    const [command = '', ...inside] = one.inside()
    const words = [...inside, 'nsenter', '-t', pid, '-n', process.execPath, '-e', load('web', 200)]
    const asking = spawn(command, words, { stdio: ['pipe', 'pipe', 'inherit'] })
    t.after(() => asking.kill('SIGKILL'))
    let text = ''
    asking.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part
    })
    const ended = once(asking, 'close')
    await eventually('the load begins', async () => text.startsWith('begun'))
    await one.skepDockerOk('service', 'update', '--force', '--detach', 'web')
    await eventually('the end of the update', async () => {
      const format = '{{.UpdateStatus.State}}'
      return (await one.skepDockerOk('service', 'inspect', '-f', format, 'web')) === 'completed'
    })
    await running(2)
    asking.stdin.end()
    await ended
    const { asked, failures } = JSON.parse(text.slice('begun'.length))
    t.diagnostic(`${asked} requests`)
    assert.deepEqual(failures, [])
  })

  test('a node without a task sends on to that of another', async () => {
    await one.skepDockerOk('service', 'scale', '-d', 'web=1')
    await running(1)
    const host = await eventually('a node without a task', async () => {
      for (const each of lab.hosts) {
        if ((await each.dockerOk('ps', '-q', '--filter', 'name=web.')) === '') return each
      }
      return undefined
    })
    const other = host === one ? two : one
    await eventually('an answer of the other node', async () => {
      const { stdout } = await host.run('curl', '-s', '-m', '2', `http://[${underlay(host)}]:8080/`)
      return nameOf(stdout) === other.name
    })
    await one.skepDockerOk('service', 'scale', '-d', 'web=2')
    await running(2)
  })

  test('networks are apart, and an internal one has no way out', async () => {
    const create = async (name: string, ...flags: readonly string[]) => {
      await one.skepDockerOk('network', 'create', '-d', 'overlay', '--ipv6', ...flags, name)
      const onIt = ['--mode', 'global', '--network', name, '--name', `on-${name}`]
      await one.skepDockerOk('service', 'create', '--detach', ...onIt, 'whoami:v1')
      return await eventually(`a task on ${name}`, async () => {
        const id = await one.dockerOk('ps', '-q', '--filter', `name=on-${name}`)
        const format =
          '{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}'
        const [pid = '', address = ''] =
          id === '' ? [] : (await one.dockerOk('inspect', '-f', format, id)).split(' ')
        // The host itself reaches it.
        return nameOf((await one.run(...curl(address))).stdout) ? { pid, address } : undefined
      })
    }
    const other = await create('other')
    const inner = await create('inner', '--internal')
    assert.equal(await inClient(one, ...curl(other.address)), '')
    assert.equal(await inClient(one, ...curl(inner.address)), '')
    const out = ['ip', '-6', 'route', 'replace', 'default', 'dev', 'eth0']
    await one.must('nsenter', '-t', inner.pid, '-n', ...out)
    const text = await one.run('nsenter', '-t', inner.pid, '-n', ...curl(other.address))
    assert.equal(text.stdout, '')
    // Nor does another host that sends packets this way.
    await two.must('ip', '-6', 'route', 'add', `${other.address}/128`, 'via', underlay(one))
    assert.equal((await two.run(...curl(other.address))).stdout, '')
    await two.must('ip', '-6', 'route', 'delete', `${other.address}/128`)
    await one.skepDockerOk('service', 'rm', 'on-other', 'on-inner')
  })

  test('an encrypted one carries it inside', { skip: noEncryption }, async () => {
    const flags = ['--ipv6', '--opt', 'encrypted', 'sealed']
    await one.skepDockerOk('network', 'create', '-d', 'overlay', ...flags)
    const onIt = ['--mode', 'global', '--network', 'sealed', '--hostname', '{{.Node.Hostname}}']
    await one.skepDockerOk(
      'service',
      'create',
      '--detach',
      ...onIt,
      '--name',
      'hidden',
      'whoami:v1',
    )
    const task = async (host: LabHost) => {
      const id = await host.dockerOk('ps', '-q', '--filter', 'name=hidden')
      const format =
        '{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}'
      const text = id === '' ? '' : await host.dockerOk('inspect', '-f', format, id)
      const [pid = '', address = ''] = text.split(' ')
      return { pid, address }
    }
    await eventually('an answer of the other node', async () => {
      const [from, to] = [await task(one), await task(two)]
      if (from.pid === '' || to.address === '') return false
      const asking = ['nsenter', '-t', from.pid, '-n', ...curl(to.address)]
      return nameOf((await one.run(...asking)).stdout) === two.name
    })
    await one.skepDockerOk('service', 'rm', 'hidden')
  })

  test('plain containers have a place in both families', async () => {
    const flags = ['-d', '--name', 'plain', '--network', 'six', '--hostname', 'plain']
    await two.skepDockerOk('run', ...flags, 'whoami:v1')
    await eventually('its name on the other node', async () => {
      const [address] = await resolve(one, 'plain')
      return address !== undefined && nameOf(await inClient(one, ...curl(address))) === 'plain'
    })
    const refused = await two.skepDocker('run', '--network', 'six', '--ip6', 'fd99::5', 'whoami:v1')
    assert.match(refused.stderr, /cannot give the address fd99::5/)
    await two.skepDockerOk('rm', '-f', 'plain')
  })

  test('what somebody breaks in the kernel is repaired', async () => {
    const devices = async (prefix: string) =>
      (await two.must('ip', '-br', 'link'))
        .split('\n')
        .flatMap((line) => (line.startsWith(prefix) ? [line.split(/[\s@]/)[0] ?? ''] : []))
    const each = async (prefix: string, work: (name: string) => Promise<unknown>) => {
      for (const name of await devices(prefix)) await work(name)
    }
    const breakages: readonly (readonly [string, () => Promise<unknown>])[] = [
      ['rules flushed', () => two.must('nft', 'flush', 'ruleset')],
      [
        'addresses taken',
        () =>
          each('sk-', (name) =>
            two.must('ip', '-6', 'address', 'flush', 'dev', name, 'scope', 'global'),
          ),
      ],
      [
        'IPv6 switched off on the bridges',
        () =>
          each('sk-', (name) =>
            two.must('sh', '-c', `echo 1 >/proc/sys/net/ipv6/conf/${name}/disable_ipv6`),
          ),
      ],
      ['bridges deleted', () => each('sk-', (name) => two.must('ip', 'link', 'delete', name))],
      ['VXLAN deleted', () => each('sv-', (name) => two.must('ip', 'link', 'delete', name))],
    ]
    for (const [what, doIt] of breakages) {
      await doIt()
      await eventually(`repair after ${what}`, () => reachesBoth(two, vip))
    }
    await eventually(
      'nothing that is wrong',
      async () => (await one.skep('net', 'doctor')).code === 0,
    )
  })

  test('a network that nothing uses leaves nothing on any node', async () => {
    await one.skepDockerOk('service', 'rm', 'web', 'client')
    for (const host of lab.hosts) {
      await eventually(`nothing on ${host.name}`, async () => {
        const tables = await host.must('nft', 'list', 'tables')
        const links = await host.must('ip', '-br', 'link')
        return !tables.includes('table ip6 skep') && !/^s[kv]-/m.test(links)
      })
    }
  })
})
